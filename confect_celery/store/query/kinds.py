"""What kinds of columns there are: only values and columns of one kind compare."""

from __future__ import annotations

import enum
import functools
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from confect_celery.store.schema import UtcTime

__all__ = ["Kind", "kind_of", "plain_type"]


class Kind(enum.Enum):
    """A family of column types. The value says what such a column is compared with."""

    TEXT = "a text"
    NUMBER = "a number"
    BOOLEAN = "True or False"
    TIME = "a DateTime"
    DATE = "a date"
    CLOCK = "a time of day"
    SPAN = "a Duration"
    UUID = "a UUID"
    ENUM = "a member of its enum"
    BYTES = "bytes"
    JSON = "nothing as a whole, only the places inside it, as in 'args.user_id'"
    OTHER = "whatever its type takes"


# The first that fits counts: an Enum is a String, and an Interval is kept as a DateTime.
_FAMILIES: tuple[tuple[tuple[type[Any], ...], Kind], ...] = (
    ((sa.JSON,), Kind.JSON),
    ((sa.Enum,), Kind.ENUM),
    ((sa.Boolean,), Kind.BOOLEAN),
    ((sa.Integer, sa.Numeric, sa.Float), Kind.NUMBER),
    ((sa.Interval, postgresql.INTERVAL), Kind.SPAN),
    ((sa.DateTime, UtcTime), Kind.TIME),
    ((sa.Date,), Kind.DATE),
    ((sa.Time,), Kind.CLOCK),
    ((sa.Uuid,), Kind.UUID),
    ((sa.LargeBinary,), Kind.BYTES),
    ((sa.String,), Kind.TEXT),
)


@functools.lru_cache(maxsize=4096)
def kind_of(type_: sa.types.TypeEngine[Any]) -> Kind:
    """The family of a column type. A TypeDecorator of the shop's takes its own values, unless it decorates JSON."""
    for classes, kind in _FAMILIES:
        if isinstance(type_, classes):
            return kind
    return Kind.JSON if isinstance(plain_type(type_), sa.JSON) else Kind.OTHER


def plain_type(type_: sa.types.TypeEngine[Any]) -> sa.types.TypeEngine[Any]:
    """The type inside a TypeDecorator."""
    while isinstance(type_, sa.types.TypeDecorator):
        type_ = type_.impl_instance
    return type_
