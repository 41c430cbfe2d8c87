"""A monitor that has just begun to listen is told of what is pending.

Monitors keep events in memory, so one that restarts has forgotten everything. When it begins to listen it asks all
workers for a heartbeat, as every receiver of Celery's events does. One of them answers for the table: it announces the
rows that are due next, in bounded batches. Nothing is asked of the table at any other time.
"""

from __future__ import annotations

import threading
import time
from contextlib import AbstractContextManager
from typing import Final

from confect_celery.runtime.announce import Announcer
from confect_celery.runtime.loop import Loop
from confect_celery.store import Store

__all__ = ["MOST_ANNOUNCED", "RollCall"]

MOST_ANNOUNCED: Final = 10_000
"""A monitor keeps a bounded number itself: `celery events` 10,000 tasks, Flower 100,000."""

_BATCH: Final = 500
_BETWEEN_BATCHES_SECONDS: Final = 0.25
_SUBSCRIBED_WITHIN_SECONDS: Final = 0.5
"""The heartbeat is asked for a moment before the monitor's own queue is ready."""
_ONE_ANSWERS_SECONDS: Final = 3.0
"""How long one worker stays the one to answer: the others hear the same broadcast within that time."""


class RollCall(Loop):
    """Sleeps until asked, then announces the pending rows that are due next."""

    name = "confect-roll-call"

    def __init__(self, store: Store, announcer: Announcer) -> None:
        super().__init__()
        self._store = store
        self._announcer = announcer
        self._asked = threading.Event()

    def ask(self) -> None:
        """Somebody has begun to listen."""
        self._asked.set()
        self.wake()

    def life(self) -> AbstractContextManager[object]:
        """The database may lend this thread a connection of its own."""
        return self._store.database.thread()

    def tick(self) -> float:
        """Answer if asked."""
        if self._asked.is_set():
            self._stopping.wait(_SUBSCRIBED_WITHIN_SECONDS)
            self._asked.clear()
            self.answer()
        return 3600.0

    def answer(self) -> int:
        """Announce, unless another worker is at it; how many rows."""
        database = self._store.database
        if database.dialect.minds_forks:  # SQLite has no such locks, and what it reads must be read quickly
            return self._announce()
        until = time.monotonic() + _ONE_ANSWERS_SECONDS
        with database.transaction() as transaction:  # for the lock alone: what is read holds up nobody
            if not database.dialect.try_lock(transaction.connection, "roll-call"):
                return 0
            told = self._announce()
            self._stopping.wait(max(0.0, until - time.monotonic()))
            return told

    def _announce(self) -> int:
        told, after = 0, None
        database, upcoming = self._store.database, self._store.rows.upcoming
        while told < MOST_ANNOUNCED and not self._stopping.is_set():
            rows = database.reading(lambda connection, after=after: upcoming(connection, after, _BATCH))  # type: ignore[misc]
            self._announcer.pending(delivery for _, delivery in rows)
            told += len(rows)
            if len(rows) < _BATCH:
                break
            after = rows[-1][0], rows[-1][1].id
            while not self._stopping.wait(_BETWEEN_BATCHES_SECONDS) and self._announcer.waiting > _BATCH:
                pass
        return told
