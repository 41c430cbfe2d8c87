"""SQLite: one file, one writer at a time, readers never wait (WAL)."""

from __future__ import annotations

import functools
import sqlite3
from collections.abc import Iterable
from itertools import chain
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import ConnectionPoolEntry

from confect_celery.store.dialects.base import Dialect
from confect_celery.store.inserts import ARGS_AT, Insert, Lot

__all__ = ["SqliteDialect"]

_BUSY_TIMEOUT_SECONDS: Final = 30
_BLOCK: Final = 250
"""How many rows one statement inserts, where there are that many: it has less than 999 parameters then."""

_TRANSIENT: Final = ("database is locked", "database table is locked", "database schema is locked")


@functools.cache
def _block(text: str, columns: int) -> str:
    """The INSERT of one row as that of many: the first parameters are what they share, then each one's id and args."""
    shared = range(1, columns - 1)
    between, after = shared[: ARGS_AT - 1], shared[ARGS_AT - 1 :]
    rows = [
        f"({', '.join(f'?{number}' for number in (own, *between, own + 1, *after))})"
        for own in range(columns - 1, columns - 1 + 2 * _BLOCK, 2)
    ]
    return f"{text.partition(' VALUES ')[0]} VALUES {', '.join(rows)}"


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
    update_returning = True
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

    def insert_many(self, connection: sa.Connection, insert: Insert, lots: Iterable[Lot]) -> None:
        """Many rows a statement, in which what they share is bound once: binding takes longer than all the rest."""
        left = []
        for lot in lots:
            for start in range(0, len(lot.ids), _BLOCK):
                ids, args = lot.ids[start : start + _BLOCK], lot.args[start : start + _BLOCK]
                if len(ids) < _BLOCK:
                    left.append(Lot(lot.shared, ids, args))
                    continue
                text, bound = insert.bound(connection.dialect, {"id": "", "args": "", **lot.shared})
                shared = bound[1:ARGS_AT] + bound[ARGS_AT + 1 :]
                connection.exec_driver_sql(
                    _block(text, len(bound)), (*shared, *chain.from_iterable(zip(ids, args, strict=True)))
                )
        if left:
            insert.many(connection, left)

    @property
    def lock(self) -> sa.ColumnElement[bool]:
        """Always: the transaction that writes is alone."""
        return sa.literal(True)

    def is_transient(self, error: BaseException) -> bool:
        """Another writer held the lock for longer than the timeout."""
        return isinstance(error, OperationalError) and any(text in str(error.orig) for text in _TRANSIENT)
