"""SQLite: one file, one writer at a time, readers never wait (WAL)."""

from __future__ import annotations

import sqlite3
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import ConnectionPoolEntry

from confect_celery.store.dialects.base import Dialect

__all__ = ["SqliteDialect"]

_BUSY_TIMEOUT_SECONDS: Final = 30
_TRANSIENT: Final = ("database is locked", "database table is locked", "database schema is locked")


def _on_connect(connection: sqlite3.Connection, _record: ConnectionPoolEntry) -> None:
    # Without this, sqlite3 decides by itself when a transaction begins, and a read followed by a write may then fail
    # for good with "database is locked", whatever the timeout.
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode = WAL")
    # In WAL mode only FULL survives a power cut with every commit that was reported.
    cursor.execute("PRAGMA synchronous = FULL")
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.close()


def _on_begin(connection: sa.Connection) -> None:
    mode = connection.get_execution_options().get("confect_begin", "DEFERRED")
    if mode is not None:
        connection.exec_driver_sql(f"BEGIN {mode}")


class SqliteDialect(Dialect):
    """SQLite 3.35 or newer, through the standard library's driver."""

    creates_itself = True
    minds_forks = True
    shares = True

    def create_engine(self) -> sa.Engine:
        """An engine in WAL mode that waits for the one writer up to 30 seconds."""
        engine = sa.create_engine(self.url, connect_args={"timeout": _BUSY_TIMEOUT_SECONDS})
        event.listen(engine, "connect", _on_connect)
        event.listen(engine, "begin", _on_begin)
        return engine

    def begin_write(self, connection: sa.Connection) -> sa.RootTransaction:
        """Take the write lock at once: a reader that turns writer half-way could only fail."""
        return connection.execution_options(confect_begin="IMMEDIATE").begin()

    def autocommit(self, connection: sa.Connection) -> sa.Connection:
        """No BEGIN: SQLite then commits each statement by itself."""
        return connection.execution_options(confect_begin=None)

    def is_open(self, connection: sa.Connection) -> bool:
        """A constraint or a trigger that says ROLLBACK ends the whole transaction, and the next statement is alone."""
        raw: Any = connection.connection.driver_connection
        return bool(raw.in_transaction)

    @property
    def lock(self) -> sa.ColumnElement[bool]:
        """Always: the transaction that writes is alone."""
        return sa.literal(True)

    def is_transient(self, error: BaseException) -> bool:
        """Another writer held the lock for longer than the timeout."""
        return isinstance(error, OperationalError) and any(text in str(error.orig) for text in _TRANSIENT)
