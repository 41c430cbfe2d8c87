"""The dispatcher finds the rows that are nearly due and claims them; the outbox publishes each when it is due.

Two threads, so that a slow database never delays what has been claimed already. Any number of dispatchers may run: they
meet only in the table, where each takes rows that no other is taking. One that dies leaves rows whose message counts as
lost after `confect_redelivery`, when another takes them up.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import threading
import time
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Final, Protocol

from confect_celery.errors import Unpublishable
from confect_celery.functions import failure
from confect_celery.runtime.floor import Floor
from confect_celery.runtime.flow import Flow
from confect_celery.runtime.loop import Loop
from confect_celery.runtime.pace import Pace, Upcoming
from confect_celery.settings import Settings
from confect_celery.store import Delivery, Store
from confect_celery.timing import Clock, DateTime, Duration, jitter

__all__ = ["Dispatcher", "Outbox", "Transport", "pause"]

logger = logging.getLogger(__name__)

_LOOK_AGAIN_SECONDS: Final = 0.1
"""How soon the dispatcher looks again while workers are behind."""

_LISTEN_SECONDS: Final = 0.3
"""The same while so many go out that workers may fall behind, or so many were found that fewer had better be next."""

_MANY: Final = 60
"""So many rows of one look take some milliseconds, in which this process does little else."""

_FRESH: Final = Duration.seconds(1)
"""What became due so short a time ago goes out although a backlog waits."""

_MOST_HELD_BACK: Final = 4
"""So often a message is not sent again because its queue is not empty: with the doubling waits, for 31 times
`confect_redelivery`."""

_REFUSED_AGAIN_AFTER: Final = Duration.seconds(2)
"""How long a row rests after the broker refused its message."""

_MOST_AT_ONCE: Final = 1000
"""How many due rows are taken from the heap before it is asked again whether to stop."""

_MOST_ODD_REFUSALS: Final = 5
"""After so many that tell of the message rather than of the broker, a row is failed."""


def pause(settings: Settings) -> Duration:
    """How long a dispatcher sleeps: a row must be seen before it is due, however long the interval was set."""
    return min(settings.poll_interval, settings.horizon / 2)


class Transport(Protocol):
    """Where messages go."""

    def publish(self, delivery: Delivery) -> None:
        """Publish one message; raises when the broker did not take it."""


class Queues(Protocol):
    """Knows the broker's queues."""

    def hold_messages(self, delivery: Delivery) -> bool:
        """Whether there are messages in the queue that the delivery's own went to."""
        ...


class Bundler(Protocol):
    """Sends many deliveries in one message, or many messages together."""

    def bundle(self, deliveries: Iterable[Delivery], spread: int) -> list[list[Delivery]]:
        """The same deliveries, in lists of those that may share a message; `spread` over so many at least."""
        ...

    def publish(self, deliveries: list[Delivery]) -> None:
        """Publish one message for more than one; raises when the broker did not take it."""

    def publish_each(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        """Publish a message for each; gives back those that the broker may not have, and raises nothing."""
        ...


class Outbox(Loop):
    """Holds claimed rows until they are due, then publishes them in order."""

    name = "confect-outbox"

    def __init__(
        self,
        store: Store,
        transport: Transport,
        clock: Clock,
        bundler: Bundler | None = None,
        pace: Pace | None = None,
    ) -> None:
        """Without a `bundler` each row has a message of its own."""
        super().__init__()
        self._store = store
        self._transport = transport
        self._bundler = bundler
        self._clock = clock
        self._heap: list[tuple[int, int, Delivery]] = []
        self._order = itertools.count()
        self._lock = threading.Lock()
        self._odd: dict[str, int] = {}
        self._upcoming = Upcoming()
        self.pace = pace or Pace()

    def __len__(self) -> int:
        return len(self._heap)

    def put(self, deliveries: Iterable[Delivery]) -> None:
        """Publish each of these at its due time."""
        with self._lock:
            for delivery in deliveries:
                due = delivery.due.epoch_micros
                heapq.heappush(self._heap, (due, next(self._order), delivery))
                self._upcoming.add(due)
        self.wake()

    def life(self) -> AbstractContextManager[object]:
        """The database may lend this thread a connection of its own."""
        return self._store.database.thread()

    def tick(self) -> float:
        """Publish all that is due; give back the time until the next is."""
        while not self._stopping.is_set():
            with self._lock:
                if not self._heap:
                    return 3600.0
                now = self._clock.now().epoch_micros
                wait = (self._heap[0][0] - now) / 1_000_000
                if self._bundler is not None:
                    wait = max(wait, self.pace.wait(self._upcoming.after(now)))
                if wait > 0:
                    return wait
                due: list[Delivery] = []
                while self._heap and self._heap[0][0] <= now and len(due) < _MOST_AT_ONCE:
                    at, _, delivery = heapq.heappop(self._heap)
                    self._upcoming.remove(at)
                    due.append(delivery)
                spread = self.pace.spread(len(due), self._upcoming.after(now))
            self.pace.went([delivery.id for delivery in due])
            self._publish_due(due, spread)
        return 0.0

    def _publish_due(self, due: list[Delivery], spread: int) -> None:
        if self._bundler is None:
            for delivery in due:
                self.publish(delivery)
            return
        alone: list[Delivery] = []
        for bundle in self._bundler.bundle(due, spread):
            if len(bundle) == 1:
                alone += bundle
            else:
                self._publish_together(self._bundler, bundle)
        if len(alone) > 1:
            left = self._bundler.publish_each(alone)
            unsent = {id(delivery) for delivery in left}
            for delivery in alone:
                if id(delivery) not in unsent:
                    self._went(delivery)
            alone = left
        for delivery in alone:
            self.publish(delivery)

    def _publish_together(self, bundler: Bundler, deliveries: list[Delivery]) -> None:
        try:
            bundler.publish(deliveries)
        except Exception as error:  # whichever it is of: alone, each tells for itself
            logger.debug("A message for %d rows was refused, each goes alone: %s", len(deliveries), error)
            for delivery in deliveries:
                self.publish(delivery)
        else:
            for delivery in deliveries:
                self._went(delivery)

    def publish(self, delivery: Delivery) -> bool:
        """Publish now. When the broker refuses, give the row back to the table; it is tried again soon.

        A row of which no message can be made fails: it would be tried again for ever.
        """
        try:
            self._transport.publish(delivery)
        except Unpublishable as error:
            self._fail(delivery, error)
            return False
        except Exception as error:
            if isinstance(error, (TypeError, ValueError)):
                # Of the message, most likely; but libraries raise such things in an outage as well.
                self._odd[delivery.id] = self._odd.get(delivery.id, 0) + 1
                if self._odd[delivery.id] >= _MOST_ODD_REFUSALS:
                    self._fail(delivery, Unpublishable(delivery.name, f"{type(error).__name__}: {error}"))
                    return False
            self._store.events.refused(delivery, error)
            self.give_back(delivery, max(delivery.due, self._clock.now() + _REFUSED_AGAIN_AFTER))
            return False
        self._went(delivery)
        return True

    def _went(self, delivery: Delivery) -> None:
        self._odd.pop(delivery.id, None)
        self._store.events.published(delivery, again=delivery.deliveries > 0)

    def _fail(self, delivery: Delivery, error: Unpublishable) -> None:
        self._store.events.refused(delivery, error)
        self._odd.pop(delivery.id, None)
        described, now = failure.describe(error), self._clock.now()
        rows = self._store.rows
        self._store.database.retrying(
            lambda transaction: rows.fail_pending(transaction.connection, delivery.id, delivery.attempt, now, described)
        )

    def give_back(self, delivery: Delivery, until: DateTime) -> None:
        """Give a row back to the table: dispatchers look at it again as of `until`."""
        with self._store.database.autocommit() as connection:
            self._store.rows.take_back(connection, delivery.id, delivery.attempt, until)

    def closing(self) -> None:
        """Give back to the table what was not due yet: another dispatcher may take it at once."""
        with self._lock:
            left, self._heap, self._upcoming = [delivery for _, _, delivery in self._heap], [], Upcoming()
        with self._store.database.transaction() as transaction:
            for delivery in left:
                self._store.rows.take_back(transaction.connection, delivery.id, delivery.attempt, delivery.due)


class Dispatcher(Loop):
    """Claims the rows that are due within the horizon, and those whose message was lost."""

    name = "confect-dispatcher"

    def __init__(
        self, store: Store, outbox: Outbox, clock: Clock, settings: Settings, queues: Queues | None = None
    ) -> None:
        """Without `queues` a message that did not arrive in time counts as lost, however long its queue is."""
        super().__init__()
        self._store = store
        self._outbox = outbox
        self._clock = clock
        self._settings = settings
        self._queues = queues
        self._floor = Floor()
        self._flow = Flow(self._pending_of)
        self._pause = pause(settings).total_seconds()

    def life(self) -> AbstractContextManager[object]:
        """The database may lend this thread a connection of its own."""
        return self._store.database.thread()

    def tick(self) -> float:
        """Claim one batch; give back the time until the next look."""
        settings, pace = self._settings, self._outbox.pace
        try:
            sample = pace.sample()
            pace.hear(self._pending_of(sample) if sample else 0, len(sample))
            if len(self._outbox) > 2 * settings.batch_size:
                return 0.05  # publishing is behind: leave the rest to other dispatchers
            full = self._flow.full()
            claimed = self.claim(fresh=full)
        except Exception:
            self._floor.reset()
            raise
        self._outbox.put(claimed)
        if full:
            return _LOOK_AGAIN_SECONDS
        if len(claimed) == settings.batch_size:
            self._flow.sent([delivery.id for delivery in claimed])
            return 0.0
        pause = min(self._pause, _LISTEN_SECONDS) if sample or len(claimed) >= _MANY else self._pause
        return pause * jitter(0.9, 1.0)  # the jitter keeps many dispatchers from asking all at once

    def claim(self, *, fresh: bool = False) -> list[Delivery]:
        """Claim one batch of due rows, the oldest first; `fresh`: only of those that became due a moment ago."""
        settings, rows = self._settings, self._store.rows
        now = self._clock.now()
        ahead = now + settings.horizon
        since = now - _FRESH if fresh else self._floor.since(now)
        began = time.monotonic()
        with self._store.database.autocommit() as connection:
            oldest = rows.oldest_due(connection, now=now, ahead=ahead, since=since)
        if not fresh:
            self._floor.looked(now, since, oldest, Duration.seconds(time.monotonic() - began))
            self._store.events.polled(oldest, now, len(self._outbox))
        if oldest is None:
            return []
        with self._store.database.transaction() as transaction:
            claimed = rows.claim_due(
                transaction.connection,
                now=now,
                ahead=ahead,
                redelivery=settings.redelivery,
                batch=settings.batch_size,
                since=since,
            )
        return [delivery for delivery in claimed if not self._is_waiting(delivery)]

    def _is_waiting(self, delivery: Delivery) -> bool:
        """Whether the row's last message is most likely still in its queue: another would only make that longer.

        It is looked at again when the next would be due; after some time it is sent whatever the queue holds, for a
        worker may have died with it.
        """
        if self._queues is None or not 0 < delivery.deliveries <= _MOST_HELD_BACK:
            return False
        return self._queues.hold_messages(delivery)

    def _pending_of(self, ids: Sequence[str]) -> int:
        with self._store.database.autocommit() as connection:
            return self._store.rows.count_pending(connection, ids)
