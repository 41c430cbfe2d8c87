"""Cursors of pages: where the last page ended, as an opaque text."""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import json
import uuid
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

from confect_celery.errors import InvalidFilter
from confect_celery.store.query.kinds import Kind
from confect_celery.store.query.operands import checked_number, checked_text

__all__ = ["check", "decode", "encode"]

_SEAL_BYTES: Final = 8

_STALE: Final = "That is no cursor of this query; take it from Page.cursor as it is, and keep the order."

_GIVEN: Final[Mapping[tuple[Kind, str], tuple[type[Any], ...]]] = {
    (Kind.TEXT, ""): (str,),
    (Kind.NUMBER, ""): (int, float, Decimal),
    (Kind.BOOLEAN, ""): (bool, int),
    (Kind.BOOLEAN, "postgresql"): (bool,),
    (Kind.TIME, ""): (dt.datetime,),
    (Kind.TIME, "sqlite"): (str,),
    (Kind.DATE, ""): (dt.date,),
    (Kind.DATE, "sqlite"): (str,),
    (Kind.CLOCK, ""): (dt.timedelta,),
    (Kind.CLOCK, "sqlite"): (str,),
    (Kind.CLOCK, "postgresql"): (dt.time,),
    (Kind.SPAN, ""): (dt.datetime,),
    (Kind.SPAN, "sqlite"): (str,),
    (Kind.SPAN, "postgresql"): (dt.timedelta,),
    (Kind.UUID, ""): (str,),
    (Kind.UUID, "postgresql"): (uuid.UUID,),
    (Kind.ENUM, ""): (str,),
    (Kind.BYTES, ""): (bytes,),
    (Kind.OTHER, ""): (object,),
}
"""What the drivers give for columns of each kind; those of MySQL, where no database is named."""

_READERS: Final[Mapping[str, Callable[[Any], Any]]] = {
    "datetime": dt.datetime.fromisoformat,
    "date": dt.date.fromisoformat,
    "time": dt.time.fromisoformat,
    "micros": lambda micros: dt.timedelta(microseconds=micros),
    "uuid": uuid.UUID,
    "decimal": Decimal,
    "bytes": bytes.fromhex,
}


def encode(order: str, values: Sequence[Any]) -> str:
    """The cursor after the row with these sort values, for the query of that `order`; safe in a URL."""
    body = json.dumps([_pack(value) for value in values], separators=(",", ":")).encode()
    return base64.urlsafe_b64encode(_seal(order, body) + body).rstrip(b"=").decode()


def decode(order: str, cursor: str) -> list[Any]:
    """The sort values of a cursor; raises InvalidFilter for a text that is none of a query of this `order`."""
    try:
        raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        # The seal is no secret. It tells a cursor of another query, or a damaged one, before the database has to.
        if raw[:_SEAL_BYTES] == _seal(order, raw[_SEAL_BYTES:]):
            values = json.loads(raw[_SEAL_BYTES:])
            if isinstance(values, list):
                return [_unpack(value) for value in values]
    except (ValueError, TypeError, LookupError, ArithmeticError, RecursionError):
        pass
    raise InvalidFilter(_STALE)


def check(kinds: Sequence[tuple[Kind, bool]], values: Sequence[Any], dialect: str) -> None:
    """Raise InvalidFilter unless each value is what the driver gives for a column of its kind (and whether nullable).

    Such a column can be asked about the value: a cursor somebody made up by himself never comes to an error in SQL.
    """
    if len(kinds) != len(values):
        raise InvalidFilter(_STALE)
    for (kind, nullable), value in zip(kinds, values, strict=True):
        if value is not None or not nullable:
            _check(kind, value, dialect)


def _check(kind: Kind, value: Any, dialect: str) -> None:
    if isinstance(value, str) and (dialect == "postgresql" or "\0" not in value):
        checked_text(value)
    elif isinstance(value, (int, float, Decimal)):
        checked_number(value)
    truth = isinstance(value, bool) and kind is Kind.NUMBER
    if truth or not isinstance(value, _GIVEN.get((kind, dialect), _GIVEN[kind, ""])):
        raise InvalidFilter(f"{_STALE} It was for {kind.value}.")


def _seal(order: str, body: bytes) -> bytes:
    return hashlib.blake2b(order.encode() + b"\0" + body, digest_size=_SEAL_BYTES).digest()


def _pack(value: Any) -> Any:
    match value:
        case None | bool() | int() | float() | str():
            return value
        case dt.datetime():
            return {"datetime": value.isoformat()}
        case dt.date():
            return {"date": value.isoformat()}
        case dt.time():
            return {"time": value.isoformat()}
        case dt.timedelta():
            return {"micros": value // dt.timedelta(microseconds=1)}
        case uuid.UUID():
            return {"uuid": str(value)}
        case Decimal():
            return {"decimal": str(value)}
        case bytes():
            return {"bytes": value.hex()}
    raise InvalidFilter(f"Pages cannot be ordered by a {type(value).__name__}.")


def _unpack(packed: Any) -> Any:
    if isinstance(packed, list):
        raise TypeError(packed)
    if not isinstance(packed, dict):
        return packed
    ((kind, text),) = packed.items()
    return _READERS[kind](text)
