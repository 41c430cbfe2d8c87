"""How a row that starts at most once is claimed and ended when it comes alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from confect_celery.errors import Unreadable
from confect_celery.runtime.messages import task_name
from confect_celery.runtime.sharing import Sharing
from confect_celery.settings import Settings
from confect_celery.store import OwnTransaction, Pending, Store
from confect_celery.timing import Clock, DateTime

__all__ = ["TRIES", "Claims"]

TRIES: Final = 10
"""A worker can wait for a database that restarts; what it holds would only come later otherwise."""


class Claims:
    """Each claim and each end is a commit of its own."""

    sharing: Sharing | None = None
    """A batch's: for mutations, which need no claim."""

    def __init__(self, store: Store, clock: Clock, settings: Settings) -> None:
        self._store = store
        self._clock = clock
        self._settings = settings

    def start(self, row: Pending) -> bool:
        """pending → inProgress. False when the row is not pending at its attempt any more."""

        def claim(transaction: OwnTransaction) -> bool:
            return self._store.rows.start(transaction.connection, row.id, row.attempt, self._lease())

        return self._store.database.retrying(claim, single=True, tries=TRIES)

    def start_due(self, id: str, attempt: int, name: str) -> Pending | None:
        """pending → inProgress of a row that nobody has read yet: what it was. None where it started nothing, be it
        that its name or time is not right; or where it has to be read first here. Raises Unreadable: then it is pending
        again, for a dispatcher to tell what is wrong with it. It is so too where another task runs in its name."""

        def claim(transaction: OwnTransaction) -> Pending | None:
            now = self._clock.now()
            return self._store.rows.start_due(transaction.connection, id, attempt, name, now, self._lease())

        try:
            row: Pending | None = self._store.database.retrying(claim, single=True, tries=TRIES)
        except Unreadable:
            self._give_back(id, attempt)
            raise
        if row is not None and task_name(row.name, row.options) != name:
            self._give_back(id, attempt)
            return None
        return row

    def _give_back(self, id: str, attempt: int) -> None:
        def give_back(transaction: OwnTransaction) -> int | None:
            now = self._clock.now()
            return self._store.rows.requeue(transaction.connection, id, attempt + 1, now, lost=False)

        self._store.database.retrying(give_back, single=True, tries=TRIES)

    def succeed(self, row: Pending, told: Callable[[], None]) -> bool:
        """inProgress → success of a row that `start` claimed, and `told()`. False when it was canceled meanwhile."""
        return self._succeed(row, self._clock.now(), told)

    def _succeed(self, row: Pending, now: DateTime, told: Callable[[], None]) -> bool:
        def end(transaction: OwnTransaction) -> bool:
            return self._store.rows.succeed_running(transaction.connection, row.id, row.attempt + 1, now)

        done = self._store.database.retrying(end, single=True, tries=TRIES)
        if done:
            told()
        return done

    def _lease(self) -> DateTime:
        return self._clock.now() + self._settings.redelivery
