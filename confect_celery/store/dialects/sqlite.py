"""SQLite: one file, one writer at a time, readers never wait (WAL)."""

from __future__ import annotations

import functools
import sqlite3
from collections.abc import Iterable, Sequence
from itertools import chain, islice
from itertools import count as count_from
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import ConnectionPoolEntry

from confect_celery.store.dialects.base import Dialect
from confect_celery.store.inserts import Insert, Lot

__all__ = ["SqliteDialect"]

_BUSY_TIMEOUT_SECONDS: Final = 30
_MOST_PARAMETERS: Final = 999
"""Of one statement, however SQLite was built."""

_TRANSIENT: Final = ("database is locked", "database table is locked", "database schema is locked")


@functools.cache
def _block(text: str, columns: int, varying: tuple[int, ...]) -> tuple[str, int]:
    """The INSERT of one row as that of many, and of how many: the first parameters are what they share, in the order of
    the columns, and then of each row those that vary."""
    shared = columns - len(varying)
    count = (_MOST_PARAMETERS - shared) // len(varying)
    own = count_from(shared + 1)
    rows = []
    for _ in range(count):
        between = count_from(1)
        numbers = (next(own if column in varying else between) for column in range(columns))
        rows.append(f"({', '.join(f'?{number}' for number in numbers)})")
    return f"{text.partition(' VALUES ')[0]} VALUES {', '.join(rows)}", count


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

    def insert_many(self, connection: sa.Connection, insert: Insert, blocks: Iterable[Sequence[Lot]]) -> None:
        """Many rows a statement, in which what they share is bound once: binding takes longer than all the rest."""
        left = []
        for lot in chain.from_iterable(blocks):
            width = lot.differing
            varying = tuple(insert.varying[:width])
            many, count = _block(insert.text(connection.dialect), len(insert.columns), varying)
            if len(lot.ids) < count:
                left.append(lot)
                continue
            _, bound, rows = insert.bound_lot(connection.dialect, lot)
            if width == 2:  # id and arguments, as mostly: there is nothing to be bound
                rows = zip(lot.ids, lot.args, strict=True)
            shared = [value for at, value in enumerate(bound) if at not in varying]
            for start in range(0, len(lot.ids), count):
                some = [row[:width] for row in islice(rows, count)]
                if len(some) < count:
                    left.append(lot.since(start))
                    continue
                connection.exec_driver_sql(many, (*shared, *chain.from_iterable(some)))
        if left:
            insert.many(connection, left)

    @property
    def lock(self) -> sa.ColumnElement[bool]:
        """Always: the transaction that writes is alone."""
        return sa.literal(True)

    def is_transient(self, error: BaseException) -> bool:
        """Another writer held the lock for longer than the timeout."""
        return isinstance(error, OperationalError) and any(text in str(error.orig) for text in _TRANSIENT)
