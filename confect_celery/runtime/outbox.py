"""The outbox publishes what a dispatcher has claimed, each row when it is due.

It has a thread of its own, so that a slow database never delays what has been claimed already.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import threading
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Final, Protocol

from confect_celery.errors import Unpublishable
from confect_celery.functions import failure
from confect_celery.runtime.loop import Loop
from confect_celery.runtime.pace import Pace, Upcoming
from confect_celery.store import Delivery, Store
from confect_celery.timing import Clock, DateTime, Duration

__all__ = ["Bundler", "Outbox", "Transport"]

logger = logging.getLogger(__name__)

_REFUSED_AGAIN_AFTER: Final = Duration.seconds(2)
"""How long a row rests after the broker refused its message."""

_MOST_AT_ONCE: Final = 1000
"""How many due rows are taken from the heap before it is asked again whether to stop."""

_MOST_ODD_REFUSALS: Final = 5
"""After so many that tell of the message rather than of the broker, a row is failed."""


class Transport(Protocol):
    """Where messages go."""

    def publish(self, delivery: Delivery) -> None:
        """Publish one message; raises when the broker did not take it."""


class Bundler(Protocol):
    """Sends many deliveries in one message, or many messages together."""

    def shares(self, delivery: Delivery) -> bool:
        """Whether it may share a message: then it may be sent a moment before its time, for who gets it waits."""
        ...

    def bundle(self, deliveries: Iterable[Delivery], spread: int) -> list[list[Delivery]]:
        """The same deliveries, in lists of those that may share a message; `spread` over so many at least."""
        ...

    def publish(self, deliveries: list[Delivery]) -> None:
        """Publish one message for these, which share it; raises when the broker did not take it."""

    def publish_each(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        """Publish a message for each; gives back those that the broker may not have, and raises nothing."""
        ...


class Outbox(Loop):
    """Holds claimed rows until they are due, then publishes them in order; those of a stream a moment before."""

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
        self._exact: list[tuple[int, int, Delivery]] = []
        self._early: list[tuple[int, int, Delivery]] = []
        """What may go out a moment before its time."""
        self._order = itertools.count()
        self._lock = threading.Lock()
        self._odd: dict[str, int] = {}
        self._upcoming = Upcoming()
        self.pace = pace or Pace()

    def __len__(self) -> int:
        return len(self._exact) + len(self._early)

    def put(self, deliveries: Iterable[Delivery]) -> None:
        """Publish each of these at its due time, or a moment before where `Pace` says so."""
        with self._lock:
            for delivery in deliveries:
                due = delivery.due.epoch_micros
                early = self._bundler is not None and self._bundler.shares(delivery)
                heapq.heappush(self._early if early else self._exact, (due, next(self._order), delivery))
                self._upcoming.add(due)
        self.wake()

    def life(self) -> AbstractContextManager[object]:
        """The database may lend this thread a connection of its own."""
        return self._store.database.thread()

    def tick(self) -> float:
        """Publish what is to go out now; give back the time until the next is."""
        while not self._stopping.is_set():
            with self._lock:
                now = self._clock.now().epoch_micros
                upcoming = self._upcoming.after(now)
                gather = self.pace.wait(upcoming, shared=bool(self._early)) if self._bundler is not None else 0.0
                # As many as are due with the first: those of one instant are not upcoming long before it.
                ahead = self.pace.ahead(self._upcoming.after(self._early[0][0]) if self._early else 0)
                times = [heap[0][0] - lead for heap, lead in ((self._exact, 0), (self._early, ahead)) if heap]
                if not times:
                    return 3600.0
                wait = max((min(times) - now) / 1_000_000, gather)
                if wait > 0:
                    return wait
                due = self._take(self._exact, now) + self._take(self._early, now + ahead)
                spread = self.pace.spread(len(due), self._upcoming.after(now))
            self.pace.went([delivery.id for delivery in due])
            self._publish_due(due, spread, now)
        return 0.0

    def _take(self, heap: list[tuple[int, int, Delivery]], until: int) -> list[Delivery]:
        taken: list[Delivery] = []
        while heap and heap[0][0] <= until and len(taken) < _MOST_AT_ONCE:
            at, _, delivery = heapq.heappop(heap)
            self._upcoming.remove(at)
            taken.append(delivery)
        return taken

    def _publish_due(self, due: list[Delivery], spread: int, now: int) -> None:
        if self._bundler is None:
            for delivery in due:
                self.publish(delivery)
            return
        alone: list[Delivery] = []
        for bundle in self._bundler.bundle(due, spread):
            if len(bundle) == 1 and bundle[0].due.epoch_micros <= now:
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
            left = [delivery for _, _, delivery in self._exact + self._early]
            self._exact, self._early, self._upcoming = [], [], Upcoming()
        with self._store.database.transaction() as transaction:
            for delivery in left:
                self._store.rows.take_back(transaction.connection, delivery.id, delivery.attempt, delivery.due)
