"""PostgreSQL 13 or newer, through psycopg 3."""

from __future__ import annotations

from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from confect_celery.store.dialects.base import Dialect, lock_number

__all__ = ["PostgresqlDialect"]

_TRANSIENT_STATES: Final = (
    "40001",  # serialization failure
    "40P01",  # deadlock
    "55P03",  # lock not available
    "53300",  # too many connections
    "57P01",  # the server shuts down
    "57P02",
    "57P03",  # the server starts up
)


class PostgresqlDialect(Dialect):
    """Row locks, advisory locks that end with the transaction, and a partial index."""

    default_driver = "psycopg"

    def create_engine(self) -> sa.Engine:
        """An engine on psycopg 3."""
        return sa.create_engine(self.url)

    def try_lock(self, connection: sa.Connection, id: str) -> bool:
        """`pg_try_advisory_xact_lock`."""
        lock = sa.func.pg_try_advisory_xact_lock(lock_number(id))
        locked: bool = connection.execute(sa.select(lock)).scalar_one()
        return locked

    def adopt(self, raw: Any, engine: sa.Engine) -> sa.Connection | None:
        """A SQLAlchemy face on the open transaction of a psycopg connection, which stays the caller's in every way."""
        if type(raw).__module__.partition(".")[0] != "psycopg" or not hasattr(raw, "cursor"):
            return None
        if raw.autocommit:
            raise TypeError("scheduler.using() joins a transaction, and this psycopg connection is in autocommit mode.")
        with engine.connect():
            pass  # the dialect knows the server then: finding out on the caller's connection would end its transaction
        pool = sa.StaticPool(lambda: raw, reset_on_return=None)
        return sa.Engine(pool, engine.dialect, engine.url).connect()

    @property
    def time(self) -> sa.ColumnElement[object]:
        """The moment of the statement, not the transaction's start."""
        return sa.func.clock_timestamp()

    def connections(self, connection: sa.Connection) -> tuple[int, int] | None:
        """Those of clients, of all databases of the server."""
        used = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' OR backend_type IS NULL"
        most = "SELECT current_setting('max_connections')::int"
        return connection.exec_driver_sql(used).scalar_one(), connection.exec_driver_sql(most).scalar_one()

    def is_transient(self, error: BaseException) -> bool:
        """Serialization failures, deadlocks, and a connection or server that went away."""
        state = getattr(getattr(error, "orig", None), "sqlstate", None)
        broken = self.is_disconnect(error) or self.is_unreachable(error)
        return broken or (isinstance(error, DBAPIError) and state in _TRANSIENT_STATES)
