"""SQLAlchemy's dialects over connections that Django has made, found under the driver names `django…`.

They do nothing to a connection when it comes, since it comes again and again, and they expect the column values that
Django's set-up of the drivers gives.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Any, Final

from sqlalchemy import types
from sqlalchemy.dialects import registry
from sqlalchemy.dialects.mysql.mysqldb import MySQLDialect_mysqldb
from sqlalchemy.dialects.mysql.pymysql import MySQLDialect_pymysql
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg
from sqlalchemy.dialects.sqlite import base as sqlite
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite

__all__ = ["DRIVERS"]


class _SqliteDateTime(sqlite.DATETIME):
    """Text as Django writes it, which compares with what is there: without microseconds where they are 0."""

    def bind_processor(self, dialect: Any) -> Callable[[Any], Any]:
        return lambda value: value.isoformat(" ") if isinstance(value, dt.datetime) else value

    def result_processor(self, dialect: Any, coltype: object) -> Callable[[Any], Any]:
        return lambda value: dt.datetime.fromisoformat(value) if isinstance(value, str) else value


class _SqliteDate(sqlite.DATE):
    def result_processor(self, dialect: Any, coltype: object) -> Callable[[Any], Any]:
        return lambda value: dt.date.fromisoformat(value) if isinstance(value, str) else value


class _SqliteTime(sqlite.TIME):
    def bind_processor(self, dialect: Any) -> Callable[[Any], Any]:
        return lambda value: value.isoformat() if isinstance(value, dt.time) else value

    def result_processor(self, dialect: Any, coltype: object) -> Callable[[Any], Any]:
        return lambda value: dt.time.fromisoformat(value) if isinstance(value, str) else value


class _MysqlTime(types.TIME):
    """Django has the driver make times of them already."""


class SqliteOverDjango(SQLiteDialect_pysqlite):
    """SQLite whose date and time columns Django's converters have read."""

    driver = "django"
    supports_statement_cache = True
    colspecs = {  # noqa: RUF012
        **SQLiteDialect_pysqlite.colspecs,
        types.DateTime: _SqliteDateTime,
        types.TIMESTAMP: _SqliteDateTime,
        types.Date: _SqliteDate,
        types.Time: _SqliteTime,
    }

    def on_connect(self) -> Any:
        """Django has functions of its own under these names."""
        return None


class PostgresqlOverDjango(PGDialect_psycopg):
    """PostgreSQL through psycopg 3."""

    driver = "django"
    supports_statement_cache = True

    def on_connect(self) -> Any:
        """Leave the connection as it is."""
        return None


class PymysqlOverDjango(MySQLDialect_pymysql):
    """MySQL or MariaDB through PyMySQL."""

    driver = "djangopymysql"
    supports_statement_cache = True
    colspecs = {**MySQLDialect_pymysql.colspecs, types.Time: _MysqlTime}  # noqa: RUF012

    def on_connect(self) -> Any:
        """Leave the connection as it is."""
        return None


class MysqldbOverDjango(MySQLDialect_mysqldb):
    """MySQL or MariaDB through mysqlclient."""

    driver = "djangomysqldb"
    supports_statement_cache = True
    colspecs = {**MySQLDialect_mysqldb.colspecs, types.Time: _MysqlTime}  # noqa: RUF012

    def on_connect(self) -> Any:
        """Leave the connection as it is."""
        return None


DRIVERS: Final = {
    ("sqlite", "sqlite3"): "sqlite+django",
    ("sqlite", "sqlite3.dbapi2"): "sqlite+django",
    ("postgresql", "psycopg"): "postgresql+django",
    ("mysql", "pymysql"): "mysql+djangopymysql",
    ("mysql", "MySQLdb"): "mysql+djangomysqldb",
}
"""Django's vendor and the driver's module, and what SQLAlchemy calls them here."""

for _name, _class in {
    "sqlite.django": SqliteOverDjango,
    "postgresql.django": PostgresqlOverDjango,
    "mysql.djangopymysql": PymysqlOverDjango,
    "mysql.djangomysqldb": MysqldbOverDjango,
}.items():
    registry.register(_name, __name__, _class.__name__)
