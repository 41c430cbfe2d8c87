"""MySQL 8 and MariaDB 10.6 or newer, through PyMySQL: no partial index, and advisory locks that belong to a session."""

from __future__ import annotations

from contextlib import suppress
from typing import Final

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from confect_celery.store.dialects.base import Dialect

__all__ = ["MysqlDialect"]

_TRANSIENT_CODES: Final = (
    1205,  # lock wait timeout
    1213,  # deadlock
    1040,  # too many connections
    1053,  # the server shuts down
    1020,  # MariaDB: the record has changed since it was read
)
_LOCKED: Final = "confect_locked"


class MysqlDialect(Dialect):
    """READ COMMITTED, since the gap locks of the default level turn plain inserts into deadlocks."""

    default_driver = "pymysql"

    def create_engine(self) -> sa.Engine:
        """An engine on PyMySQL, its sessions in UTC."""
        return sa.create_engine(
            self.url,
            isolation_level="READ COMMITTED",
            connect_args={"init_command": "SET time_zone = '+00:00'", "charset": "utf8mb4"},
        )

    @property
    def lock(self) -> sa.ColumnElement[bool]:
        """`GET_LOCK` without waiting. It is the session's: `release` gives it back, and so does a dead connection."""
        name = sa.func.concat("confect:", sa.bindparam("lock", type_=sa.BigInteger))
        return sa.func.get_lock(name, 0, type_=sa.Integer) == 1

    def note_lock(self, connection: sa.Connection) -> None:
        """There is something to give back."""
        connection.info[_LOCKED] = True

    def release(self, connection: sa.Connection) -> None:
        """Give back the locks of the transaction that has ended."""
        if connection.info.pop(_LOCKED, False):
            with suppress(DBAPIError):  # a connection that is gone has given them back
                connection.exec_driver_sql("DO RELEASE_ALL_LOCKS()")
                connection.rollback()

    @property
    def time(self) -> sa.ColumnElement[object]:
        """The moment of the statement, in UTC."""
        return sa.func.utc_timestamp(6)

    def connections(self, connection: sa.Connection) -> tuple[int, int] | None:
        """As the server's status tells."""
        used = connection.exec_driver_sql("SHOW GLOBAL STATUS LIKE 'Threads_connected'").one()[1]
        return int(used), int(connection.exec_driver_sql("SELECT @@max_connections").scalar_one())

    def is_transient(self, error: BaseException) -> bool:
        """Deadlocks, lock waits that timed out, and a connection or server that went away."""
        code = next(iter(getattr(getattr(error, "orig", None), "args", ())), None)
        broken = self.is_disconnect(error) or self.is_unreachable(error)
        return broken or (isinstance(error, DBAPIError) and code in _TRANSIENT_CODES)
