"""The cron loop fires what is due: the swap of the next fire and the new row are one transaction.

Any number of loops may run; for each fire one of them wins the swap. There is no leader.
"""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager
from typing import Final, Protocol

from confect_celery.crons import CronJob, CronJobs
from confect_celery.runtime.loop import Loop
from confect_celery.store import CronRow, EncodedCall, OwnTransaction, Store, new_id
from confect_celery.timing import Clock, DateTime, Duration

__all__ = ["CronLoop", "Crons"]

logger = logging.getLogger(__name__)

_LOOK_EVERY_SECONDS: Final = 10.0
"""How often the table is looked at though nothing is due: another process may have changed it."""

_ABANDONED_AFTER: Final = Duration.seconds(60)
"""A cron that is overdue for so long is fired by nobody: whoever knows it takes it over with its own schedule."""


class Crons(Protocol):
    """What the loop needs of the app."""

    crons: CronJobs

    @property
    def store(self) -> Store:
        """The table of crons, and that of rows."""
        ...

    @property
    def clock(self) -> Clock:
        """The time."""
        ...

    def encode(self, job: CronJob) -> EncodedCall:
        """The call that a fire of `job` makes."""
        ...

    def schedule_in(self, transaction: OwnTransaction, call: EncodedCall, id: str, due: DateTime) -> object:
        """Write its row in this transaction."""


class CronLoop(Loop):
    """Fires the crons of this process's code."""

    name = "confect-crons"

    def __init__(self, parts: Crons) -> None:
        super().__init__()
        self._parts = parts
        self._declared = False

    def life(self) -> AbstractContextManager[object]:
        """The database may lend this thread a connection of its own."""
        return self._parts.store.database.thread()

    def tick(self) -> float:
        """Fire what is due; give back the time until the next fire."""
        if not len(self._parts.crons):
            return 3600.0
        soonest = self.fire_due()
        if soonest is None:
            return _LOOK_EVERY_SECONDS
        wait = (soonest - self._parts.clock.now()).total_seconds()
        return min(max(wait, 0.001), _LOOK_EVERY_SECONDS)

    def fire_due(self) -> DateTime | None:
        """Fire every cron that is due; gives back the time of the next fire of all."""
        store = self._parts.store
        rows = store.database.reading(store.crons.all)
        times = []
        for job in self._parts.crons:
            try:
                times.append(store.database.retrying(lambda t, job=job: self._look(t, job, rows.get(job.name))))  # type: ignore[misc]
            except Exception as error:  # one cron's fault is not the others'
                logger.error("The cron %r could not fire: %s: %s", job.name, type(error).__name__, error)
        self._declared = True
        return min((time for time in times if time is not None), default=None)

    def _look(self, transaction: OwnTransaction, job: CronJob, row: CronRow | None) -> DateTime | None:
        connection, now = transaction.connection, self._parts.clock.now()
        crons, spec = self._parts.store.crons, job.schedule.text
        if row is None:
            first = job.schedule.first(now)
            crons.add(connection, job.name, spec, first)
            return first
        if row.spec != spec:
            # While a deploy rolls, the process that started last knows better; the others leave the cron to it.
            if self._declared and now - row.next_at < _ABANDONED_AFTER:
                return None
            first = job.schedule.first(now)
            return first if crons.respec(connection, row, spec, first) else None
        if row.next_at > now:
            return row.next_at
        return self._fire(transaction, job, row, now)

    def _fire(self, transaction: OwnTransaction, job: CronJob, row: CronRow, now: DateTime) -> DateTime | None:
        store = self._parts.store
        fires = job.schedule.fires(row.next_at, now)
        id = new_id(now) if job.overlap or not self._is_live(transaction, row) else None
        if not store.crons.fire(transaction.connection, row, fires.latest, fires.next, fires.missed, id):
            return now  # another dispatcher was first: look again
        if id is not None:
            self._parts.schedule_in(transaction, self._parts.encode(job), id, fires.latest)
        if fires.missed:
            logger.warning("The cron %r missed %d fires while nobody ran it; it runs once now.", job.name, fires.missed)
        if id is None:
            logger.warning("The cron %r was skipped: its last run %s has not ended.", job.name, row.last_id)
        return fires.next

    def _is_live(self, transaction: OwnTransaction, row: CronRow) -> bool:
        if row.last_id is None:
            return False
        state = self._parts.store.rows.state(transaction.connection, row.last_id)
        return state is not None and not state.terminal
