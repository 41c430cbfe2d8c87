"""The dispatcher finds the rows that are nearly due, claims them and gives them to its outbox.

Any number of dispatchers may run: they meet only in the table, where each takes rows that no other is taking. One that
dies leaves rows whose message counts as lost after `confect_redelivery`, when another takes them up.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Final, Protocol

from confect_celery.runtime.floor import Floor
from confect_celery.runtime.loop import Loop
from confect_celery.runtime.outbox import Outbox
from confect_celery.runtime.windows import Windows
from confect_celery.settings import Settings
from confect_celery.store import Delivery, Store
from confect_celery.timing import Clock, Duration, jitter

__all__ = ["Dispatcher"]

_LOOK_AGAIN_SECONDS: Final = 0.1
"""How soon the dispatcher looks again while workers are behind."""

_LISTEN_SECONDS: Final = 0.3
"""The same while so many go out that workers may fall behind, or so many were found that fewer had better be next."""

_MANY: Final = 60
"""So many rows of one look take some milliseconds, in which this process does little else."""

_FRESH: Final = Duration.seconds(1)
"""What became due so short a time ago goes out although a backlog waits."""

_MOST_FLOORS: Final = 50
"""Of more sets of names than that all floors are forgotten: the next looks are full ones."""

_MOST_HELD_BACK: Final = 4
"""So often a message is not sent again because its queue is not empty: with the doubling waits, for 31 times
`confect_redelivery`."""


class Queues(Protocol):
    """Knows the broker's queues."""

    def hold_messages(self, delivery: Delivery) -> bool:
        """Whether there are messages in the queue that the delivery's own went to."""
        ...


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
        self._floors: dict[frozenset[str], Floor] = {}
        """By the names that are passed over."""
        self._windows = Windows(self._pending_of, settings.batch_size)
        self._pause = settings.pause.total_seconds()

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
            full = self._windows.full()
            if full:
                self._send(self._find(settings.batch_size, fresh=True))
            batch = self._windows.batch
            found = self._find(batch, but=full)
        except Exception:
            self._floors.clear()
            raise
        sent = self._send(found)
        if len(found) == batch:
            if found[-1].due > self._clock.now():
                self._windows.caught_up({delivery.name for delivery in found})
            else:
                self._windows.sent((delivery.name, delivery.id) for delivery in sent)
            return 0.0
        if full:
            return _LOOK_AGAIN_SECONDS
        pause = min(self._pause, _LISTEN_SECONDS) if sample or len(found) >= _MANY else self._pause
        return pause * jitter(0.9, 1.0)  # the jitter keeps many dispatchers from asking all at once

    def claim(self) -> list[Delivery]:
        """Claim one batch of due rows, the oldest first; gives back those whose messages are to be sent."""
        return self._unless_waiting(self._find(self._settings.batch_size))

    def _find(self, batch: int, *, fresh: bool = False, but: Sequence[str] = ()) -> list[Delivery]:
        """Claim up to `batch` due rows; `fresh`: only of those that became due a moment ago; none of the names in
        `but`."""
        settings, rows = self._settings, self._store.rows
        now = self._clock.now()
        ahead = now + settings.horizon
        floor = self._floor_of(but)
        since = now - _FRESH if fresh else floor.since(now)
        began = time.monotonic()
        with self._store.database.autocommit() as connection:
            oldest = rows.oldest_due(connection, now=now, ahead=ahead, since=since, but=but)
        if not fresh:
            floor.looked(now, since, oldest, Duration.seconds(time.monotonic() - began))
        if not (fresh or but):
            self._store.events.polled(oldest, now, len(self._outbox))
        if oldest is None:
            return []
        with self._store.database.transaction() as transaction:
            return rows.claim_due(
                transaction.connection,
                now=now,
                ahead=ahead,
                redelivery=settings.redelivery,
                batch=batch,
                since=since,
                but=but,
            )

    def _floor_of(self, but: Sequence[str]) -> Floor:
        names = frozenset(but)
        if names not in self._floors:
            if len(self._floors) >= _MOST_FLOORS:
                self._floors.clear()
            # Before that of fewer names there is nothing for more of them either.
            fewer = [known for known in self._floors if known < names]
            self._floors[names] = copy.copy(self._floors[max(fewer, key=len)]) if fewer else Floor()
        return self._floors[names]

    def _send(self, found: Sequence[Delivery]) -> list[Delivery]:
        sent = self._unless_waiting(found)
        self._outbox.put(sent)
        return sent

    def _unless_waiting(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        return [delivery for delivery in deliveries if not self._is_waiting(delivery)]

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
