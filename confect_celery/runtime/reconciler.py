"""The reconciler keeps the table true where a function's own end could not be recorded.

Celery tells it some of these ends (`task.ConfectRequest`, `worker_step`): a child that died, a hard time limit, a
revoke, an unknown task. The sweep finds the rest: runners whose lease ran out, and rows old enough to go.
"""

from __future__ import annotations

import datetime as dt
import logging
import queue
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Final

from confect_celery.errors import UnknownFunction
from confect_celery.functions import failure
from confect_celery.runtime.announce import Announcer, Silent
from confect_celery.runtime.loop import Loop
from confect_celery.runtime.messages import task_name
from confect_celery.settings import Settings
from confect_celery.store import OwnTransaction, StateKind, Store
from confect_celery.timing import Clock, DateTime

__all__ = ["Reconciler"]

logger = logging.getLogger(__name__)

_MOST_LOSSES: Final = 3
"""After this many deaths of its worker a mutation, or a task that Celery delivers again, is failed."""

_PRUNE_EVERY_SECONDS: Final = 10.0
_PRUNE_BATCH: Final = 1000
_PRUNE_FOR_SECONDS: Final = 1.0
"""How long a sweep prunes; half of it at rest, so that others come to write where there is one writer."""
_PRUNE_SHARE: Final = 100
"""A walk that had to pass over many rows comes again only when it took one part in so many of the time."""
_REVOKED_BATCH: Final = 500


class WorkerLost(Exception):
    """The worker that ran the function died."""


class TimeLimitExceeded(Exception):
    """The function ran longer than its hard time limit."""


class Reconciler(Loop):
    """Applies what it is told in order, renews the leases of this worker's actions, and sweeps."""

    name = "confect-reconciler"

    def __init__(
        self,
        store: Store,
        clock: Clock,
        settings: Settings,
        running: Callable[[], Iterable[str]],
        redelivers: Callable[[str], bool] = lambda _: False,
        announcer: Announcer | None = None,
    ) -> None:
        """`running` gives the ids of the functions that this worker runs at the moment; `redelivers` tells of a plain
        task whether Celery would deliver it again after its worker was lost; `announcer` hears of ends that Celery does
        not know of."""
        super().__init__()
        self._store = store
        self._clock = clock
        self._settings = settings
        self._running = running
        self._redelivers = redelivers
        self._announcer = announcer or Silent()
        self._told: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
        self._pause = (settings.redelivery / 4).total_seconds()
        self._prune_at = 0.0
        self._prune_after = ""
        self._pruned_for = 0.0
        self.ahead = dt.timedelta(0)
        """How far the database's clock is ahead of this host's, as of the last look: the worker's main thread, which
        never waits for the database, needs it."""

    # -- what Celery tells; called on the worker's main thread, so the work is left to our own

    def worker_lost(self, id: str, attempt: int, message: str, *, held: bool = False) -> None:
        """The child running this row died. An action fails; a mutation is tried again, three times in all.

        A row that the child `held` at this attempt fails even if it looks as if it had not begun: its begin was not on
        disk, and the database may have forgotten it.
        """
        self._tell(lambda transaction: self._on_worker_lost(transaction, id, attempt, message, held))

    def requeued(self, id: str, attempt: int, message: str) -> None:
        """The child running this task died, or the task gave its message back: it is tried again, three times in all.

        Celery's own message is of the old attempt and starts nothing; a new one is published from the row.
        """
        self._tell(lambda transaction: self._requeue(transaction, id, attempt + 1, message))

    def succeeded(self, id: str, attempt: int) -> None:
        """The task had succeeded before its child died."""
        self._tell(lambda transaction: self._succeed(transaction, id, attempt + 1))

    def timed_out(self, id: str, attempt: int, limit: float) -> None:
        """The hard time limit ended it: the row fails, whatever its kind."""
        error = TimeLimitExceeded(f"It ran longer than its time limit of {limit} s.")
        self._tell(lambda transaction: self._fail(transaction, id, attempt, error))

    def unknown(self, id: str, attempt: int, name: str) -> None:
        """No code defines the function any more."""
        self._tell(lambda transaction: self._on_unknown(transaction, id, attempt, name))

    def not_begun(self, rows: Sequence[tuple[str, int]], *, alone: bool, held: Sequence[tuple[str, int]] = ()) -> None:
        """A batch ended before its child came to these: they go out again; `alone`, where it may be one of them that
        ended the child. Of those in `held`, by the attempt that this made of theirs, the child may have held some."""

        def give_back(transaction: OwnTransaction) -> None:
            now = self._clock.now()
            for id, attempt in rows:
                self._store.rows.take_back(transaction.connection, id, attempt, now, delivered=alone)
            for id, attempt in held:
                self._store.rows.release(transaction.connection, [id], attempt, now)

        self._tell(give_back)

    def revoked(self, ids: Sequence[str]) -> None:
        """Celery revoked or terminated these: those that are rows are canceled for good. Every worker hears of it."""
        self._told.put(lambda: self._on_revoked(ids))
        self.wake()

    def _tell(self, apply: Callable[[OwnTransaction], None]) -> None:
        self._told.put(lambda: self._store.database.retrying(apply))
        self.wake()

    def _on_worker_lost(self, transaction: OwnTransaction, id: str, attempt: int, message: str, held: bool) -> None:
        rows, connection, now = self._store.rows, transaction.connection, self._clock.now()
        lost = failure.describe(WorkerLost(message), (WorkerLost,))
        transaction.after_commit(lambda: self._store.events.worker_lost(id))
        # An action's claim raised the attempt; a mutation's row is still pending at the message's own.
        if rows.fail_running(connection, id, attempt + 1, now, lost) or (
            held and rows.fail_pending(connection, id, attempt, now, lost)
        ):
            self._record(transaction, id)
            return
        losses = rows.lose(connection, id, attempt, now + self._settings.min_delay)
        if losses is not None and losses >= _MOST_LOSSES:
            rows.fail_pending(connection, id, attempt + 1, now, lost)
        if losses is not None:
            self._record(transaction, id)

    def _succeed(self, transaction: OwnTransaction, id: str, running: int) -> None:
        if self._store.rows.succeed_running(transaction.connection, id, running, self._clock.now()):
            self._record(transaction, id)

    def _record(self, transaction: OwnTransaction, id: str) -> None:
        """Tell what has become of the row, once it stands."""
        row, events = self._store.rows.get(transaction.connection, id), self._store.events
        if row is None:
            return
        if row.state.kind is StateKind.PENDING:
            transaction.after_commit(lambda: events.retried(row.id, row.name, "worker_lost"))
        elif row.state.kind in (StateKind.SUCCESS, StateKind.FAILED):
            tag = row.state.error.tag if row.state.error else None
            transaction.after_commit(lambda: events.finished(row, row.state.kind.value, error=tag))

    def _requeue(self, transaction: OwnTransaction, id: str, running: int, message: str) -> None:
        rows, connection, now = self._store.rows, transaction.connection, self._clock.now()
        losses = rows.requeue(connection, id, running, now + self._settings.min_delay)
        if losses is not None and losses >= _MOST_LOSSES:
            rows.fail_pending(connection, id, running + 1, now, failure.describe(WorkerLost(message), (WorkerLost,)))
        if losses is not None:
            self._record(transaction, id)

    def _fail(self, transaction: OwnTransaction, id: str, attempt: int, error: Exception) -> None:
        rows, connection, now = self._store.rows, transaction.connection, self._clock.now()
        described = failure.describe(error, (type(error),))
        if rows.fail_pending(connection, id, attempt, now, described) or rows.fail_running(
            connection, id, attempt + 1, now, described
        ):
            self._record(transaction, id)

    def _on_unknown(self, transaction: OwnTransaction, id: str, attempt: int, name: str) -> None:
        row = self._store.rows.load(transaction.connection, id, attempt)
        # A message that bears the row's id under another name is not its own.
        if row is not None and task_name(row.name, row.options) == name:
            self._fail(transaction, id, attempt, UnknownFunction(name))

    def _on_revoked(self, ids: Sequence[str]) -> None:
        database, rows = self._store.database, self._store.rows
        for start in range(0, len(ids), _REVOKED_BATCH):
            some = ids[start : start + _REVOKED_BATCH]
            for id in database.reading(lambda connection, some=some: rows.live(connection, some)):  # type: ignore[misc]
                now = self._clock.now()

                def cancel(transaction: OwnTransaction, id: str = id, now: DateTime = now) -> bool:
                    done = rows.cancel(transaction.connection, id, now)
                    return self._store.events.canceled(transaction, id, done, "revoke")

                if database.retrying(cancel):
                    self._announcer.canceled([id])

    # -- the loop

    def life(self) -> AbstractContextManager[object]:
        """The database may lend this thread a connection of its own."""
        return self._store.database.thread()

    def compare_clocks(self) -> None:
        """Look how far the database's clock is ahead."""
        self.ahead = dt.timedelta(seconds=(self._clock.now() - DateTime.now()).total_seconds())

    def tick(self) -> float:
        """Renew, apply what was told, sweep."""
        self.compare_clocks()
        self.renew_leases()  # first: it must not wait for anything that fails
        self.apply_told()
        self.sweep()
        return self._pause

    def closing(self) -> None:
        """Apply what was told last."""
        self.apply_told()

    def apply_told(self) -> None:
        """Bring into the table what Celery told. What the database has no time for now stays for the next time; what
        can never be applied is given up, and what it was about is the sweep's."""
        while True:
            try:
                apply = self._told.get_nowait()
            except queue.Empty:
                return
            try:
                apply()
            except Exception as error:
                if self._store.database.dialect.is_transient(error):
                    self._told.put(apply)
                    raise
                # Kept, it would come first again and again, and nothing else would ever be told.
                logger.exception("What Celery told could not be brought into the table.")

    def renew_leases(self) -> None:
        """Tell the table that the functions this worker runs are still running."""
        ids = list(self._running())
        if ids:
            with self._store.database.transaction() as transaction:
                self._store.rows.renew(transaction.connection, ids, self._clock.now() + self._settings.redelivery)

    def sweep(self) -> None:
        """Fail the rows whose runner is gone, and delete those whose retention is over."""
        now, batch, rows = self._clock.now(), self._settings.batch_size, self._store.rows
        with self._store.database.autocommit() as connection:
            dead = rows.any_dead(connection, now)
        if dead:
            with self._store.database.transaction() as transaction:
                self._bury(transaction, now, batch)
        if time.monotonic() >= self._prune_at:
            more = self._prune_for_a_while()
            if not more:
                self._prune_at = time.monotonic() + max(_PRUNE_EVERY_SECONDS, _PRUNE_SHARE * self._pruned_for)
                self._pruned_for = 0.0

    def _bury(self, transaction: OwnTransaction, now: DateTime, batch: int) -> None:
        message = "Its worker stopped answering."
        lost = []
        for row in self._store.rows.dead(transaction.connection, now, batch):
            transaction.after_commit(lambda row=row: self._store.events.dead_lease(row))  # type: ignore[misc]
            again = row.kind == "task" and self._redelivers(row.name)
            if again:
                self._requeue(transaction, row.id, row.attempt, message)
            else:
                lost.append(row.id)
        error = WorkerLost(message)
        self._store.rows.bury(transaction.connection, lost, now, failure.describe(error, (WorkerLost,)))
        for id in lost:
            transaction.after_commit(lambda id=id: self._announcer.failed(id, error))  # type: ignore[misc]
            self._record(transaction, id)

    def _prune_for_a_while(self) -> bool:
        """One batch after the other, resting as long as each took; whether the walk over the table goes on."""
        until = time.monotonic() + _PRUNE_FOR_SECONDS
        while True:
            began = time.monotonic()
            more = self.prune()
            took = time.monotonic() - began
            self._pruned_for += took
            if not more:
                return False
            if began + took >= until or not self._told.empty() or self._stopping.wait(took):
                return True

    def prune(self) -> bool:
        """Delete what is old in one batch of rows; whether the walk over the table goes on. Workers that prune at the
        same time would wait for each other's rows: only one does."""
        now, database, rows = self._clock.now(), self._store.database, self._store.rows
        with database.transaction() as transaction:
            if not database.dialect.try_lock(transaction.connection, f"prune:{self._store.table.fullname}"):
                return False
            _, after = rows.prune(
                transaction.connection,
                after=self._prune_after,
                now=now,
                oldest=now - self._settings.retention,
                batch=_PRUNE_BATCH,
            )
        self._prune_after = after or ""
        return after is not None
