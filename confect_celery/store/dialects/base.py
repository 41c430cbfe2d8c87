"""The interface of a dialect, and what most of them have in common."""

from __future__ import annotations

import datetime as dt
import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Any, ClassVar

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, OperationalError

from confect_celery.store.inserts import Insert, Lot
from confect_celery.store.prepared import Answer, Prepared
from confect_celery.timing import DateTime, Duration

__all__ = ["Dialect", "lock_number"]


def lock_number(id: str) -> int:
    """63 bits that stand for a row in an advisory lock: its id may be of the caller's own making."""
    return int.from_bytes(hashlib.blake2b(id.encode(), digest_size=8).digest(), "big") >> 1


class Dialect(ABC):
    """How one kind of database connects, begins, locks, tells the time, and reports trouble."""

    default_driver: ClassVar[str | None] = None
    creates_itself: ClassVar[bool] = False
    """Whether the table is created on first use, with no migration run by an operator."""
    changes_in_ctes: ClassVar[bool] = False
    """Whether one statement can hold more than one UPDATE."""
    update_returning: ClassVar[bool] = False
    """Whether an UPDATE can give back the rows that it changed."""
    shares: ClassVar[bool] = False
    """Whether mutations may share a transaction, each in a savepoint, without one waiting long for another."""
    holds: ClassVar[bool] = False
    """Whether rows may be held: a commit can do without the disk, and `kept_all_since` tells."""
    spares: ClassVar[bool] = False
    """Whether a connection can go from one use to another, in autocommit or not, and nobody need reset it."""

    listeners: ClassVar[int] = 0
    """How many of ours `create_engine` has listen to the texts of statements."""

    block: ClassVar[int | None] = None
    """How many rows at a time `insert_many` sends, so that they can be made while the server takes those before; None
    where it takes all at once."""

    minds_forks: ClassVar[bool] = False
    """Whether an open connection harms a forked child that never touches it."""

    def __init__(self, url: sa.URL) -> None:
        if self.default_driver is not None and "+" not in url.drivername:
            url = url.set(drivername=f"{url.drivername}+{self.default_driver}")
        self.url = url

    @abstractmethod
    def create_engine(self) -> sa.Engine:
        """A new engine, its connections set up for our use."""

    def begin(self, connection: sa.Connection) -> sa.RootTransaction:
        """Begin a transaction."""
        return connection.begin()

    def begin_write(self, connection: sa.Connection) -> sa.RootTransaction:
        """Begin a transaction that will write."""
        return self.begin(connection)

    def autocommit(self, connection: sa.Connection) -> sa.Connection:
        """Let each statement on `connection` be its own transaction."""
        try:
            return connection.execution_options(isolation_level="AUTOCOMMIT")
        except DBAPIError:
            raise
        except Exception as error:  # the driver's own: MySQL's asks the server, which may be gone since the last use
            connection.invalidate()
            raise OperationalError(None, None, error, connection_invalidated=True) from error

    def beside_id(self, column: sa.ColumnElement[str]) -> sa.ColumnElement[str]:
        """The column in a condition beside that on the id, by which alone the row is to be found."""
        return column

    def among(
        self, column: sa.ColumnElement[Any], parameter: str, type_: sa.types.TypeEngine[Any]
    ) -> sa.ColumnElement[bool]:
        """Whether the column holds one of those in the list that the parameter is bound to."""
        return column.in_(sa.bindparam(parameter, type_=type_, expanding=True))

    @property
    @abstractmethod
    def lock(self) -> sa.ColumnElement[bool]:
        """An expression that takes the advisory lock whose number is the parameter `lock`, for the rest of the
        transaction; false when somebody else has it."""

    @property
    def relaxed(self) -> sa.ColumnElement[object] | None:
        """An expression that has the commit of its transaction wait for no disk; None where there is no such thing."""
        return None

    def kept_all_since(self, connection: sa.Connection) -> DateTime | None:
        """Since when the server has surely forgotten nothing that was committed, be it on disk or not yet; by its own
        clock. None where it cannot be told."""
        return None

    def lock_each(
        self, chosen: sa.Select[Any], id: sa.ColumnElement[Any], type_: sa.types.TypeEngine[Any]
    ) -> sa.Select[Any]:
        """Where mutations may share a transaction: those of the chosen rows whose ids are in the parameter `rows`, with
        one column more. It takes for each its advisory lock, whose number stands at the same place in the parameter
        `locks`. Nobody else changes these rows for the rest of the transaction; what is being changed is left out."""
        return chosen.add_columns(sa.literal(True)).where(self.among(id, "rows", type_))  # as one writer has them

    def note_lock(self, connection: sa.Connection) -> None:  # noqa: B027
        """Called where a statement with `lock` was executed."""

    def begin_savepoint(self, connection: sa.Connection, name: str) -> None:
        """Begin the savepoint `name`."""
        connection.exec_driver_sql(f"SAVEPOINT {name}")

    def is_open(self, connection: sa.Connection) -> bool:
        """Whether the transaction has not ended by itself, so that what was done before in it is there still."""
        return True

    def execute(self, connection: sa.Connection, statement: Prepared, parameters: Mapping[str, Any]) -> Answer:
        """Execute it, in the quickest way there is."""
        return statement.execute(connection, parameters)

    def execute_first(
        self, connection: sa.Connection, statement: Prepared, parameters: Mapping[str, Any], *, bounded: bool = False
    ) -> Answer:
        """Execute the first statement of a transaction that `begin_write` has begun. `bounded`: from there on no
        statement may take long, nor wait for a lock; it raises instead."""
        return statement.execute(connection, parameters)

    def execute_last(
        self,
        connection: sa.Connection,
        change: Prepared,
        checked: Prepared,
        parameters: Mapping[str, Any],
        *,
        many: int = 1,
    ) -> bool:
        """Execute the `change` that is a transaction's last statement; whether it changed so `many` rows. Where it did,
        the transaction may have committed with it; where not, it is to be rolled back.

        `checked` is the same, and divides by zero where it did not change as many as its own parameter `many` says.
        """
        return self.execute(connection, change, parameters).rowcount == many

    def is_direct(self, connection: sa.Connection) -> bool:
        """Whether `execute_direct` goes past SQLAlchemy's events now."""
        return False

    def execute_direct(
        self, connection: sa.Connection, savepoint: str | None, statement: Prepared, parameters: Mapping[str, Any]
    ) -> Answer:
        """Begin the savepoint, if one is named, and execute a statement of the shop's own."""
        if savepoint is not None:
            self.begin_savepoint(connection, savepoint)
        return statement.execute(connection, parameters)

    def in_savepoint(
        self, connection: sa.Connection, name: str, statement: Prepared, parameters: Mapping[str, Any]
    ) -> Sequence[Any] | None:
        """Begin the savepoint `name`, and give back the one row of `statement`, if there is one."""
        connection.exec_driver_sql(f"SAVEPOINT {name}")
        return statement.execute(connection, parameters).row

    def try_lock(self, connection: sa.Connection, id: str) -> bool:
        """Take the advisory lock of a row for the rest of the transaction; False when somebody else has it."""
        locked = bool(connection.execute(sa.select(self.lock), {"lock": lock_number(id)}).scalar_one())
        self.note_lock(connection)
        return locked

    def insert_many(self, connection: sa.Connection, insert: Insert, blocks: Iterable[Sequence[Lot]]) -> None:
        """Insert all rows of these lots, in the quickest way there is."""
        insert.many(connection, chain.from_iterable(blocks))

    def adopt(self, raw: Any, engine: sa.Engine) -> sa.Connection | None:
        """A SQLAlchemy face on the open transaction of a driver's own connection; None for what is no such thing."""
        return None

    def release(self, connection: sa.Connection) -> None:  # noqa: B027
        """Called after a transaction has ended, before its connection serves another."""

    @property
    def time(self) -> sa.ColumnElement[object] | None:
        """The database's clock as an expression; None when the database runs in this process."""
        return None

    def clock_offset(self, connection: sa.Connection) -> Duration:
        """How far the database's clock is ahead of this process's, to about half a round trip."""
        if self.time is None:
            return Duration.zero
        before = DateTime.now()
        theirs: dt.datetime = connection.execute(sa.select(self.time)).scalar_one()  # type: ignore[assignment]
        after = DateTime.now()
        aware = theirs if theirs.tzinfo else theirs.replace(tzinfo=dt.UTC)
        return DateTime.of(aware) - (before + (after - before) / 2)

    def connections(self, connection: sa.Connection) -> tuple[int, int] | None:
        """How many connections the server has open, and how many it allows; None where there is no server."""
        return None

    def is_disconnect(self, error: BaseException) -> bool:
        """Whether the connection broke: what was being committed may or may not have been."""
        return isinstance(error, DBAPIError) and error.connection_invalidated

    def is_unreachable(self, error: BaseException) -> bool:
        """Whether no connection could be made, so that nothing was done yet."""
        return isinstance(error, OperationalError) and error.statement is None

    @abstractmethod
    def is_transient(self, error: BaseException) -> bool:
        """Whether the same work may well succeed when it is simply done again."""
