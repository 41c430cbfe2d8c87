"""Values to compare with, checked: no database is asked to make sense of one that does not fit.

PostgreSQL would refuse it and so break the transaction; MySQL would find every text that starts like the number.
"""

from __future__ import annotations

import datetime as dt
import enum
import math
import uuid
from decimal import Decimal
from typing import Any

import sqlalchemy as sa

from confect_celery.errors import InvalidFilter
from confect_celery.store.query.kinds import Kind, kind_of
from confect_celery.timing import DateTime, Duration

__all__ = ["bound", "checked_number", "checked_text"]


def bound(value: Any, type_: sa.types.TypeEngine[Any], dialect: str) -> sa.ColumnElement[Any]:
    """`value` as a parameter to compare a column of this type with, times apart; raises InvalidFilter if it misfits."""
    kind = kind_of(type_)
    if isinstance(value, enum.Enum) and not (isinstance(type_, sa.Enum) and type_.enum_class):
        value = value.value
    match kind, value:
        case Kind.TEXT, str() | uuid.UUID():
            value = checked_text(str(value))
        case Kind.NUMBER, int() | float() | Decimal() if not isinstance(value, bool):
            return _number(value, type_, dialect)
        case Kind.BOOLEAN, bool() | 0 | 1:
            value = bool(value)
        case (Kind.DATE, dt.date()) | (Kind.CLOCK, dt.time()) if not isinstance(value, (DateTime, dt.datetime)):
            pass
        case Kind.SPAN, Duration() | dt.timedelta():
            value = Duration.of(value).to_timedelta()
        case Kind.UUID, uuid.UUID() | str():
            value = _uuid(value, type_)
        case Kind.BYTES, bytes():
            pass
        case Kind.ENUM, str() | enum.Enum():
            value = _member(value, type_)
        case Kind.OTHER, _:
            pass
        case _, None:
            return sa.null()
        case _:
            raise InvalidFilter(f"{value!r} does not fit: such a column is compared with {kind.value}.")
    return sa.literal(value, type_)


def checked_text(text: str) -> str:
    """The text, unless a database could not even be asked about it."""
    if "\0" in text or any("\ud800" <= char <= "\udfff" for char in text):
        raise InvalidFilter(f"{text!r} holds NUL or half a character, which no database compares.")
    return text


def checked_number(value: float | Decimal) -> int | float | Decimal:
    """The number, if it is finite and an integer has 64 bits at most."""
    if isinstance(value, int):
        fits = -(2**63) <= value < 2**63
    elif isinstance(value, Decimal):
        fits = value.is_finite() and abs(value.adjusted()) < 300  # math.isfinite() refuses a signaling NaN
    else:
        fits = math.isfinite(value)
    if not fits:
        shown = f"An integer of {value.bit_length()} bits" if isinstance(value, int) else repr(value)
        raise InvalidFilter(f"{shown} cannot be compared: numbers are finite, integers of 64 bits at most.")
    return value


def _number(value: float | Decimal, type_: sa.types.TypeEngine[Any], dialect: str) -> sa.ColumnElement[Any]:
    number = checked_number(value)
    if isinstance(number, int):
        return sa.literal(number, sa.BigInteger())  # wider than the column perhaps: then it equals nothing there
    if isinstance(number, Decimal) and not (isinstance(type_, sa.Float) or dialect == "sqlite"):
        return sa.literal(number, sa.Numeric())
    return sa.literal(float(number), sa.Double())


def _uuid(value: uuid.UUID | str, type_: sa.types.TypeEngine[Any]) -> uuid.UUID | str:
    try:
        parsed = value if isinstance(value, uuid.UUID) else uuid.UUID(value)
    except ValueError:
        raise InvalidFilter(f"{value!r} is no UUID.") from None
    return parsed if getattr(type_, "as_uuid", True) else str(parsed)


def _member(value: str | enum.Enum, type_: sa.types.TypeEngine[Any]) -> str | enum.Enum:
    assert isinstance(type_, sa.Enum)
    if isinstance(type_.enum_class, type) and isinstance(value, type_.enum_class):
        return value
    if value not in type_.enums:
        raise InvalidFilter(f"{value!r} is none of {', '.join(map(repr, type_.enums))}.")
    return value
