"""The harness: the same store, dispatcher and gate as in production, without a broker and without waiting."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from confect_celery.app import Confect
from confect_celery.errors import ConfectError
from confect_celery.functions import FunctionRef, InternalPath, codec
from confect_celery.runtime import CronLoop, Dispatcher, Dropped, Outbox
from confect_celery.store import Delivery, Query, ScheduledFunction
from confect_celery.timing import DateTime, Duration, SettableClock

__all__ = ["Harness", "TooManyIterations", "harness"]

Ref = FunctionRef[Any, Any] | InternalPath


class TooManyIterations(ConfectError):
    """`run_all` met more than `maximum` times at which something was due: a function may be scheduling itself."""

    def __init__(self, maximum: int) -> None:
        self.maximum = maximum
        super().__init__(
            f"Functions were still pending after {maximum} iterations. Raise max_iterations if that is meant."
        )


class Harness:
    """A shop under test. Nothing runs by itself: `run_due` and `run_all` run it, `advance` moves the clock."""

    def __init__(self, confect: Confect, clock: SettableClock, stack: ExitStack) -> None:
        self.confect = confect
        self.clock = clock
        self._stack = stack
        self._messages: list[tuple[DateTime, int, Delivery]] = []
        self._order = itertools.count()
        outbox = Outbox(confect.store, self, clock)
        self._dispatcher = Dispatcher(confect.store, outbox, clock, confect.settings)
        self._crons = CronLoop(confect)

    def publish(self, delivery: Delivery) -> None:
        """Take a message, as the broker would."""
        heapq.heappush(self._messages, (delivery.due, next(self._order), delivery))

    def advance(self, duration: Duration) -> None:
        """Move the clock; nothing runs."""
        self._look_at_crons()
        self.clock.advance(duration)

    def run_due(self) -> list[ScheduledFunction]:
        """Run everything that is due by now, in order of time, and what becomes due meanwhile; gives back the rows."""
        ran: list[ScheduledFunction] = []
        self._look_at_crons()
        while True:
            for delivery in self._dispatcher.claim():
                self.publish(delivery)
            if not self._messages or self._messages[0][0] > self.clock.now():
                return ran
            delivery = heapq.heappop(self._messages)[2]
            outcome = self.confect.run_delivery(delivery)
            row = self.confect.scheduler.get(delivery.id)
            if row is not None and not isinstance(outcome, Dropped):
                ran.append(row)

    def _look_at_crons(self) -> None:
        # A cron fires once however many of its times the clock was moved over, as after an outage.
        if len(self.confect.crons):
            self._crons.fire_due()

    def run_all(self, max_iterations: int = 100) -> list[ScheduledFunction]:
        """Advance to each due time and run, until nothing is pending; gives back the rows in the order they ran.

        Crons that come due on the way fire; that others will fire later keeps nothing waiting.

        Raises TooManyIterations when that takes more than `max_iterations` steps.
        """
        ran = self.run_due()
        for _ in range(max_iterations):
            pending = self.scheduled()
            if not pending:
                return ran
            due = min(row.next_at for row in pending if row.next_at is not None)
            waiting = [message[0] for message in self._messages]
            self.clock.set(max(self.clock.now(), min([due, *waiting])))
            ran += self.run_due()
        if self.scheduled():
            raise TooManyIterations(max_iterations)
        return ran

    def scheduled(self, ref: Ref | None = None, state: str | None = "pending") -> list[ScheduledFunction]:
        """The scheduled functions of `ref` (None: of all) in `state` (None: in any), by their due time."""
        name = None if ref is None else self.confect.registry.resolve(ref).name
        with self.confect.reader() as db:
            query: Query[ScheduledFunction] = db.table("_scheduled_functions")
            if name is not None:
                query = query.filter(lambda q: q.eq(q.field("name"), name))
            if state is not None:
                query = query.filter(lambda q: q.eq(q.field("state.kind"), state))
            return query.order("asc", by="scheduled_time").collect()

    def assert_scheduled(self, ref: Ref, args: Any = None, at: DateTime | None = None) -> ScheduledFunction:
        """Assert that exactly one function `ref` is pending, with `args` and due `at` where these are given."""
        function = self.confect.registry.resolve(ref)
        candidates = self.scheduled(ref)
        found = candidates
        if args is not None:
            encoded = codec.encode(function, args)
            found = [row for row in found if row.args == encoded]
        if at is not None:
            found = [row for row in found if row.scheduled_time == at]
        listed = "".join(f"\n  {row.scheduled_time} {row.args}" for row in candidates) or " none"
        assert len(found) == 1, f"{len(found)} of {function.name} match; pending are:{listed}"
        return found[0]

    def provide(self, service: Any, fake: Any) -> None:
        """Give functions `fake`, a value or a factory, in place of `service` until the harness ends."""
        self._stack.enter_context(self.confect.services.override(service, fake))


@contextmanager
def harness(confect: Confect, database_url: str | None = None, now: DateTime | None = None) -> Iterator[Harness]:
    """Run the shop `confect` in this process: no broker, no threads, a clock that stands still at `now`.

    It works on the shop's configured database, or on `database_url`. Both are as they were afterwards.
    """
    clock = SettableClock(now or DateTime.now())
    with ExitStack() as stack:
        stack.enter_context(confect.redirected(clock=clock, database_url=database_url))
        it = Harness(confect, clock, stack)
        stack.enter_context(confect.redirected(publish=it.publish))
        yield it
