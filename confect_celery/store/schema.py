"""The table `_scheduled_functions`, and the column types it needs on each database."""

from __future__ import annotations

import datetime as dt
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects import mysql, postgresql
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator, TypeEngine

from confect_celery.timing import DateTime

__all__ = ["CRONS_NAME", "TABLE_NAME", "UtcTime", "crons_table", "exact_text", "json_type", "scheduled_functions_table"]

TABLE_NAME: Final = "_scheduled_functions"
CRONS_NAME: Final = "_confect_crons"

_LENGTH_WITHOUT_OFFSET: Final = len("2030-01-01 00:00:00.000000")


class UtcTime(TypeDecorator[DateTime]):
    """An instant in UTC with microseconds; accepts `DateTime` and aware datetimes, gives back `DateTime`.

    PostgreSQL keeps it as timestamptz, MySQL as DATETIME(6) in UTC, SQLite as a text that sorts by time.
    """

    impl = sa.DateTime
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Choose the richest timestamp type that the database has."""
        if dialect.name == "postgresql":
            return dialect.type_descriptor(sa.DateTime(timezone=True))
        if dialect.name in ("mysql", "mariadb"):
            return dialect.type_descriptor(mysql.DATETIME(fsp=6))
        return dialect.type_descriptor(sa.DateTime())

    def bind_processor(self, dialect: Dialect) -> Any:
        """As `process_bind_param` and SQLAlchemy after it; in one step for psycopg, and for SQLite's texts."""
        process: Any = super().bind_processor(dialect)

        def bound(value: Any) -> Any:
            return value.to_utc() if type(value) is DateTime else None if value is None else process(value)

        def text(value: Any) -> Any:
            if type(value) is not DateTime:
                return None if value is None else process(value)
            return value.to_utc().isoformat(" ", "microseconds")[:_LENGTH_WITHOUT_OFFSET]

        return {"psycopg": bound, "pysqlite": text}.get(dialect.driver, process)

    def process_bind_param(self, value: DateTime | dt.datetime | None, dialect: Dialect) -> dt.datetime | None:
        """Bind in UTC; a naive datetime raises `NaiveDateTime`."""
        if value is None:
            return None
        utc = DateTime.of(value).to_utc()
        return utc if dialect.name == "postgresql" else utc.replace(tzinfo=None)

    def process_result_value(self, value: Any, dialect: Dialect) -> DateTime | None:
        """Give back a `DateTime` in UTC."""
        if value is None:
            return None
        aware: dt.datetime = value if value.tzinfo else value.replace(tzinfo=dt.UTC)
        return DateTime.of(aware.astimezone(dt.UTC))


def exact_text(length: int) -> TypeEngine[str]:
    """Text that is compared byte by byte: MySQL's default collation ignores case and trailing blanks."""
    exact = mysql.VARCHAR(length, charset="utf8mb4", collation="utf8mb4_bin")
    return sa.String(length).with_variant(exact, "mysql", "mariadb")


def json_type() -> TypeEngine[Any]:
    """JSON, as jsonb on PostgreSQL; Python's None becomes NULL."""
    return sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql")


def scheduled_functions_table(metadata: sa.MetaData, *, schema: str | None = None, prefix: str = "") -> sa.Table:
    """Define the table in `metadata`, in a PostgreSQL `schema` or with a `prefix` to its name.

    `next_at` is set if and only if the row is pending or inProgress. Its index finds due rows and messages that were
    lost; a second one, of running rows alone, finds workers that died, however many rows are due before them.
    """
    json = json_type()
    table = sa.Table(
        f"{prefix}{TABLE_NAME}",
        metadata,
        sa.Column("id", exact_text(36), primary_key=True),
        sa.Column("name", exact_text(255), nullable=False),
        sa.Column("kind", sa.String(10), nullable=False),
        sa.Column("args", json, nullable=False),
        sa.Column("scheduled_time", UtcTime, nullable=False),
        sa.Column("creation_time", UtcTime, nullable=False),
        sa.Column("completed_time", UtcTime),
        sa.Column("state", sa.String(10), nullable=False),
        sa.Column("error", json),
        sa.Column("next_at", UtcTime),
        sa.Column("attempt", sa.Integer, nullable=False, server_default="0"),
        # How often this attempt was handed to the broker: 0 tells "not yet", and each more doubles the wait.
        sa.Column("deliveries", sa.Integer, nullable=False, server_default="0"),
        # How many workers died while they ran this mutation.
        sa.Column("losses", sa.Integer, nullable=False, server_default="0"),
        sa.Column("options", json, nullable=False),
        sa.Column("parent_id", exact_text(36)),
        schema=schema,
    )
    live = table.c.next_at.is_not(None)
    sa.Index(
        f"ix_{prefix}scheduled_functions_next",
        table.c.next_at,
        table.c.id,
        postgresql_where=live,
        sqlite_where=live,
    )
    running = table.c.state == sa.literal_column("'inProgress'", sa.String)
    sa.Index(
        f"ix_{prefix}scheduled_functions_running",
        table.c.state,
        table.c.next_at,
        table.c.id,
        postgresql_where=running,
        sqlite_where=running,
    )
    return table


def crons_table(metadata: sa.MetaData, *, schema: str | None = None, prefix: str = "") -> sa.Table:
    """Define the table of crons beside the other."""
    return sa.Table(
        f"{prefix}{CRONS_NAME}",
        metadata,
        sa.Column("name", exact_text(255), primary_key=True),
        sa.Column("spec", exact_text(255), nullable=False),
        sa.Column("next_at", UtcTime, nullable=False),
        sa.Column("last_at", UtcTime),
        sa.Column("last_id", exact_text(36)),
        sa.Column("missed", sa.Integer, nullable=False, server_default="0"),
        sa.Column("skipped", sa.Integer, nullable=False, server_default="0"),
        schema=schema,
    )
