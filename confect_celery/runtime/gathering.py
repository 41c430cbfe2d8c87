"""Messages that wait in a worker while all its children are busy go to one of them together.

While a child is free each message goes to it alone, as ever. What comes meanwhile names rows, and a row of a batch
costs a fraction of one that comes alone: so the worker makes a batch of what waits. Only of rows of brief functions and
tasks, which lose nothing by waiting for each other.

All of it is done in the thread of the worker's loop.
"""

from __future__ import annotations

import logging
import math
import time
import uuid
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final

from celery import bootsteps
from celery.app.trace import LOG_RECEIVED
from celery.concurrency.asynpool import AsynPool
from celery.exceptions import InvalidTaskError
from celery.worker import state as worker_state
from celery.worker.strategy import logger
from kombu import Message
from kombu.exceptions import ContentDisallowed, DecodeError

from confect_celery.runtime.arrivals import Arrival, Reader, may_share
from confect_celery.runtime.batches import BATCH_TASK, Entry, batch_headers
from confect_celery.runtime.prefetch import Prefetch

if TYPE_CHECKING:
    from celery.worker.consumer import Consumer

    from confect_celery.runtime.parts import Parts

__all__ = ["Gathering", "GatheringStep", "waiting"]

_BRIEF_SECONDS: Final = 0.02
"""A row that takes a child longer goes alone."""

_TOGETHER_SECONDS: Final = 0.03
"""What goes together may take a child about so long: another may be free sooner."""

_FORGETS: Final = 0.9
"""What a row of a function took longest counts so much less with each that ends after it."""

_MOST_LEARNT_FROM: Final = 100
_LOGGED: Final = {"id": "id", "name": "task", "args": "argsrepr", "kwargs": "kwargsrepr", "eta": "eta"}
_BODY: Final = '[[], {}, {"callbacks": null, "errbacks": null, "chain": null, "chord": null}]'


@dataclass(frozen=True, slots=True)
class _InPool:
    """A request that was handed to the pool."""

    request: Any
    entries: list[Entry]
    brief: bool


class Gathering:
    """What waits in one worker's main process, from `begin()` to `end()`."""

    def __init__(self, consumer: Any, most: int, seconds: dict[str, float]) -> None:
        """`most` rows go to a child together. `seconds` holds, by the name of a function or task, how long a row of it
        takes at the most, with its way there and back: what is known already, and what is learnt."""
        self.waiting: deque[Arrival] = deque()
        self._consumer = consumer
        self._most = most
        self._handle_batch: Callable[..., Any] = consumer.strategies[BATCH_TASK]
        self._prefetch = Prefetch(consumer)
        self._in_pool: list[_InPool] = []
        self._seconds = seconds

    def begin(self) -> None:
        """Stand before Celery's own handlers of messages, where a task leaves that to them."""
        consumer = self._consumer
        tasks, strategies = consumer.app.tasks, consumer.strategies
        for name, handle in list(strategies.items()):
            task = tasks[name]
            if may_share(task):
                reader = Reader(task, handle, task.time_limit or consumer.controller.time_limit)
                strategies[name] = self._before(handle, reader)
        consumer.hub.on_tick.add(self._tick)

    def end(self) -> None:
        """What waits was not acknowledged: the broker has it still."""
        self._consumer.hub.on_tick.discard(self._tick)
        self.waiting.clear()

    def _before(self, handle: Callable[..., Any], reader: Reader) -> Callable[..., Any]:
        def received(*given: Any) -> None:
            arrival = reader.read(given)
            if arrival is None:
                handle(*given)
            elif self._is_to_wait(arrival):
                self.waiting.append(arrival)
            else:
                self._hand_over(handle, given, [arrival.entry], brief=self._is_brief(arrival))

        return received

    def _is_to_wait(self, arrival: Arrival) -> bool:
        return self._is_brief(arrival) and (bool(self.waiting) or not self._has_room())

    def _expected(self, arrival: Arrival) -> float:
        return self._seconds.get(arrival.entry.name, math.inf)

    def _is_brief(self, arrival: Arrival) -> bool:
        return self._expected(arrival) <= _BRIEF_SECONDS

    def _has_room(self) -> bool:
        """Whether a child may be free, as far as it is for us. Where the pool grows with what is reserved, it is to
        see that there is more than its children can take."""
        most: int = self._consumer.controller.max_concurrency or self._consumer.pool.num_processes
        return self._brief_in_pool() < most

    def _brief_in_pool(self) -> int:
        return sum(each.brief for each in self._in_pool)

    def _tick(self) -> None:
        """Once in each turn of the worker's loop."""
        if self._in_pool:
            self._in_pool = [each for each in self._in_pool if not self._has_ended(each)]
        gathered = False
        if self.waiting and self._has_room():
            while self.waiting and self._has_room():
                gathered |= self._send() > 1
            self._consumer.pool._pool.on_poll_start()  # which may have had its turn before us
        self._prefetch.look(gathered=gathered, others=len(worker_state.requests) > self._brief_in_pool())

    def _has_ended(self, each: _InPool) -> bool:
        request = each.request
        if request.id in worker_state.requests:
            return False
        if request.time_start is not None:
            seconds = (time.time() - request.time_start) / len(each.entries)
            for name in {entry.name for entry in each.entries}:
                self._seconds[name] = max(seconds, self._seconds.get(name, 0.0) * _FORGETS)
        return True

    def _send(self) -> int:
        """The first that waits, and others of those after it that go the same way; how many."""
        first, *others = (self.waiting.popleft() for _ in range(min(len(self.waiting), self._most)))
        chosen, seconds = [first], self._expected(first)
        left: list[Arrival] = []
        way = None if first.is_revoked else first.way
        for arrival in others:
            seconds += self._expected(arrival)
            goes_along = arrival.way == way and seconds <= _TOGETHER_SECONDS and not arrival.is_revoked
            (chosen if goes_along else left).append(arrival)
        self.waiting.extendleft(reversed(left))
        entries = [arrival.entry for arrival in chosen]
        if len(chosen) == 1:
            self._hand_over(first.handle, first.given, entries, brief=True)
        else:
            self._hand_over(self._handle_batch, _together(chosen, entries), entries, brief=True)
        return len(chosen)

    def _hand_over(
        self, handle: Callable[..., Any], given: tuple[Any, ...], entries: list[Entry], *, brief: bool
    ) -> None:
        message, payload = given[:2]
        try:
            handle(*given)
        except (InvalidTaskError, ContentDisallowed) as error:  # as Celery does that calls handlers
            self._consumer.on_invalid_task(payload, message, error)
        except DecodeError as error:
            self._consumer.on_decode_error(message, error)
        request = worker_state.requests.get(message.headers["id"])
        if request is not None and (brief or len(self._in_pool) < _MOST_LEARNT_FROM):
            self._in_pool.append(_InPool(request, entries, brief))


def _together(arrivals: list[Arrival], entries: list[Entry]) -> tuple[Any, ...]:
    """What the handler of batches takes, as if these had come in one message: with the child's word that it has it,
    each is acknowledged."""
    first, id = arrivals[0], str(uuid.uuid4())
    for arrival in arrivals:
        _log_received(arrival.message.headers)
    message = Message(
        body=_BODY,
        content_type="application/json",
        content_encoding="utf-8",
        headers=batch_headers(id, entries, first.limit),
        properties={"correlation_id": id},
        delivery_info=first.message.delivery_info,
    )

    def acknowledge(*given: Any) -> None:
        for arrival in arrivals:
            arrival.given[2](*given)

    def reject(*given: Any) -> None:
        for arrival in arrivals:
            arrival.given[3](*given)

    return message, None, acknowledge, reject, first.given[4]


def _log_received(headers: Any) -> None:
    """In Celery's words, which it has for what comes alone."""
    if logger.isEnabledFor(logging.INFO):
        context = {name: headers.get(of) for name, of in _LOGGED.items()}
        logger.info(LOG_RECEIVED, context, extra={"data": context})


_gathering: Gathering | None = None


def waiting() -> int:
    """How many messages wait in this worker's main process to be gathered."""
    return len(_gathering.waiting) if _gathering is not None else 0


class GatheringStep(bootsteps.StartStopStep):
    """Once a worker consumes, and again whenever it has had to connect anew: a prefork worker with a loop."""

    requires = ("celery.worker.consumer.tasks:Tasks",)
    parts: ClassVar[Parts]

    def __init__(self, parent: Consumer, **options: Any) -> None:
        super().__init__(parent, **options)
        self._seconds: dict[str, float] = {}

    def start(self, parent: Consumer) -> None:
        """Begin, unless the shop says how children are to be used."""
        global _gathering
        consumer: Any = parent  # the stubs know little of it
        most, controller = self.parts.settings.gathered, consumer.controller
        if most < 2 or consumer.hub is None or not isinstance(getattr(consumer.pool, "_pool", None), AsynPool):
            return
        if controller.soft_time_limit or controller.max_tasks_per_child == 1:
            return
        _gathering = Gathering(consumer, most, self._seconds)
        _gathering.begin()

    def stop(self, parent: Consumer) -> None:
        """End, before the channel does."""
        global _gathering
        gathering, _gathering = _gathering, None
        if gathering is not None:
            gathering.end()

    def terminate(self, parent: Consumer) -> None:
        """At a cold shutdown as well."""
        self.stop(parent)
