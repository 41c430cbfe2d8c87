"""Python values on their way into a column, and out of it."""

from __future__ import annotations

import datetime as dt
import enum
import json
import uuid
from collections.abc import Sequence
from types import NoneType
from typing import Any, Final

import sqlalchemy as sa
from pydantic import BaseModel
from pydantic_core import to_jsonable_python
from sqlalchemy.dialects import mysql

from confect_celery.errors import InvalidTime
from confect_celery.store.query.kinds import Kind, kind_of
from confect_celery.store.query.operands import bound
from confect_celery.store.schema import UtcTime
from confect_celery.timing import DateTime, Duration

__all__ = [
    "by_bytes",
    "comparable",
    "declared_collation",
    "equals",
    "from_column",
    "is_json",
    "is_uuid",
    "operand",
    "to_column",
]

_MYSQL: Final = mysql.dialect()
_UTF8: Final = mysql.CHAR(charset="utf8mb4")
_PLAIN: Final = frozenset({str, int, float, bool, NoneType})


def to_column(value: Any, column: sa.Column[Any], dialect: str) -> Any:
    """`value` as `column` takes it: our times as datetimes, models and times inside JSON as JSON.

    A time without a zone raises NaiveDateTime, one for a column of dates InvalidTime; NaN in JSON raises ValueError.
    """
    kind = kind_of(column.type)
    if kind is Kind.JSON:
        plain = to_jsonable_python(value, by_alias=True)
        json.dumps(plain, allow_nan=False)  # SQLite would keep NaN, and choke on it in every later filter
        return plain
    if type(value) in _PLAIN:
        return value
    if isinstance(value, (DateTime, dt.datetime)):
        if kind in (Kind.DATE, Kind.CLOCK):
            raise InvalidTime(value, "an instant has a date and a time of day only in a zone: give that date or time")
        return _to_time(value, column.type, dialect)
    if isinstance(value, Duration):
        return value.to_timedelta()
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", by_alias=True)
    if isinstance(value, enum.Enum) and not (isinstance(column.type, sa.Enum) and column.type.enum_class):
        return value.value
    return value


def operand(value: Any, column: sa.Column[Any], dialect: str) -> sa.ColumnElement[Any]:
    """`value` as a parameter to compare `column` with; raises InvalidFilter if it does not fit the column."""
    if isinstance(value, (DateTime, dt.datetime)) and kind_of(column.type) is Kind.TIME:
        return sa.literal(_to_time(value, column.type, dialect), column.type)
    return bound(value, column.type, dialect)


def equals(column: sa.Column[Any], values: Sequence[Any], dialect: str) -> sa.ColumnElement[bool]:
    """`column` is one of the values; raises InvalidFilter if one does not fit the column."""
    operands = [operand(value, column, dialect) for value in values]
    equal = column == operands[0] if len(operands) == 1 else column.in_(operands)
    if dialect in ("mysql", "mariadb") and kind_of(column.type) is Kind.TEXT and _is_exact(column):
        # Their default collations ignore case and trailing blanks, binary ones the blanks. The first condition lets an
        # index serve.
        exact = by_bytes(column).in_([sa.cast(each, sa.BINARY()) for each in operands])
        return sa.and_(equal, exact) if all(comparable(column, value, dialect) is column for value in values) else exact
    return equal


def comparable(column: sa.Column[Any], value: Any, dialect: str) -> sa.ColumnElement[Any]:
    """The column, so that it can be compared with `value`: one in latin1, as the server may have made it, cannot be
    with a text that latin1 does not spell."""
    if dialect in ("mysql", "mariadb") and isinstance(value, str) and not value.isascii():
        return column if declared_collation(column) else sa.cast(column, _UTF8)
    return column


def _is_exact(column: sa.Column[Any]) -> bool:
    # Another collation than a binary one was declared to have it so.
    collation = declared_collation(column)
    return collation is None or collation.endswith("_bin")


def by_bytes(text: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
    """A text on MySQL as its bytes, for comparisons that no collation has a say in."""
    return sa.cast(sa.cast(text, _UTF8), sa.BINARY())


def from_column(value: Any) -> Any:
    """A datetime out of a column as a DateTime in UTC, as which one without a zone was written; a timedelta as a
    Duration."""
    if isinstance(value, dt.datetime):
        return DateTime.of(value if value.tzinfo else value.replace(tzinfo=dt.UTC)).in_zone("UTC")
    return Duration.of(value) if isinstance(value, dt.timedelta) else value


def is_json(type_: sa.types.TypeEngine[Any]) -> bool:
    """Whether a column of this type holds JSON."""
    return kind_of(type_) is Kind.JSON


def is_uuid(text: str) -> bool:
    """Whether the text can be read as a UUID."""
    try:
        uuid.UUID(text)
    except ValueError:
        return False
    return True


def declared_collation(column: sa.Column[Any]) -> str | None:
    """The collation that a text column was declared with for MySQL."""
    collation: str | None = getattr(column.type.dialect_impl(_MYSQL), "collation", None)
    return collation


def _to_time(value: DateTime | dt.datetime, kind: sa.types.TypeEngine[Any], dialect: str) -> dt.datetime:
    utc = DateTime.of(value).to_utc()
    if isinstance(kind, UtcTime) or (isinstance(kind, sa.types.TypeDecorator) and kind_of(kind) is Kind.OTHER):
        return utc
    # Only PostgreSQL has times with a zone; the others get UTC without saying so, and so does a plain column.
    zoned = isinstance(kind, sa.DateTime) and kind.timezone and dialect == "postgresql"
    return utc if zoned else utc.replace(tzinfo=None)
