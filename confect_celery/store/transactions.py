"""Transactions that tell when they have committed: our own, and a caller's that is joined."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, Protocol

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.orm import Session, SessionTransaction

__all__ = ["JoinedTransaction", "OwnTransaction", "Transaction"]

logger = logging.getLogger(__name__)

_CALLBACKS: Final = "confect_celery.after_commit"


class Transaction(Protocol):
    """A transaction that somebody ends: the connection to work on, and word of its commit."""

    connection: sa.Connection

    def after_commit(self, callback: Callable[[], None]) -> bool:
        """Have `callback` called once the transaction has committed; False when nobody would tell us."""
        ...


def _run(callbacks: list[Callable[[], None]]) -> None:
    # The commit stands whatever happens here.
    for callback in callbacks:
        try:
            callback()
        except Exception:
            logger.exception("A callback failed after the commit; the dispatcher will make up for it.")


class OwnTransaction:
    """A transaction that `Database` began: its callbacks run right after the commit, and never after a rollback."""

    def __init__(self, connection: sa.Connection) -> None:
        self.connection = connection
        self._callbacks: list[Callable[[], None]] = []

    def after_commit(self, callback: Callable[[], None]) -> bool:
        """Always possible."""
        self._callbacks.append(callback)
        return True

    def committed(self) -> None:
        """Run the callbacks."""
        _run(self._callbacks)

    @contextmanager
    def savepoint(self) -> Iterator[None]:
        """A part that may roll back alone, its callbacks with it."""
        before = len(self._callbacks)
        try:
            with self.connection.begin_nested():
                yield
        except BaseException:
            del self._callbacks[before:]
            raise


class JoinedTransaction:
    """A transaction of the caller's: it is the caller who commits or rolls back."""

    def __init__(self, connection: sa.Connection, session: Session | None = None) -> None:
        self.connection = connection
        self._session = session

    def after_commit(self, callback: Callable[[], None]) -> bool:
        """Possible on a Session, which announces its commits; a bare Connection does not."""
        if self._session is None:
            return False
        if _CALLBACKS not in self._session.info:
            self._session.info[_CALLBACKS] = []
            event.listen(self._session, "after_commit", _session_committed)
            event.listen(self._session, "after_soft_rollback", _session_rolled_back)
        self._session.info[_CALLBACKS].append((callback, _savepoints(self._session)))
        return True


def _savepoints(session: Session) -> list[SessionTransaction]:
    """The savepoints that are open, the innermost first."""
    found, inner = [], session.get_nested_transaction()
    while inner is not None and inner.nested:
        found.append(inner)
        inner = inner.parent
    return found


def _session_committed(session: Session) -> None:
    # The event also fires when a savepoint is released; only the outermost commit makes the row visible to a worker.
    if not session.in_nested_transaction():
        callbacks, session.info[_CALLBACKS] = session.info[_CALLBACKS], []
        _run([callback for callback, _ in callbacks])


def _session_rolled_back(session: Session, ended: SessionTransaction) -> None:
    # A savepoint takes along what was registered inside it, also by savepoints that were released into it: the message
    # of a move that was undone would be for the attempt that the next move gives the row.
    callbacks = session.info[_CALLBACKS] if ended.nested else []
    session.info[_CALLBACKS] = [each for each in callbacks if ended not in each[1]]
