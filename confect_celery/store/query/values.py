"""Python values on their way into a column, and out of it."""

from __future__ import annotations

import datetime as dt
import enum
from typing import Any

import sqlalchemy as sa
from pydantic import BaseModel
from pydantic_core import to_jsonable_python

from confect_celery.store.schema import UtcTime
from confect_celery.timing import DateTime, Duration

__all__ = ["from_column", "to_column"]


def to_column(value: Any, column: sa.Column[Any] | None, dialect: str) -> Any:
    """`value` as `column` takes it: our times as datetimes, models and times inside JSON as JSON.

    A time without a zone raises NaiveDateTime.
    """
    kind = None if column is None else column.type
    if isinstance(kind, sa.JSON):
        return to_jsonable_python(value, by_alias=True)
    if isinstance(value, (DateTime, dt.datetime)) and not isinstance(kind, UtcTime):
        utc = DateTime.of(value).to_utc()
        # Only PostgreSQL has times with a zone; the others get UTC without saying so, and so does a plain column.
        zoned = isinstance(kind, sa.DateTime) and kind.timezone and dialect == "postgresql"
        return utc if zoned else utc.replace(tzinfo=None)
    if isinstance(value, Duration):
        return value.to_timedelta()
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", by_alias=True)
    if isinstance(value, enum.Enum) and not isinstance(kind, sa.Enum):
        return value.value
    return value


def from_column(value: Any) -> Any:
    """A datetime out of a column as a DateTime: one without a zone was written in UTC."""
    if isinstance(value, dt.datetime):
        return DateTime.of(value if value.tzinfo else value.replace(tzinfo=dt.UTC))
    return value
