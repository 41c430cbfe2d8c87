"""Cursors of pages: where the last page ended, as an opaque text."""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import json
import uuid
from decimal import Decimal
from typing import Any

import sqlalchemy as sa

from confect_celery.errors import InvalidFilter
from confect_celery.timing import DateTime

__all__ = ["beyond", "decode", "encode"]


def encode(sort: Any, key: Any) -> str:
    """The cursor after the row with this sort value and primary key."""
    return base64.urlsafe_b64encode(json.dumps([_pack(sort), _pack(key)]).encode()).decode()


def decode(cursor: str) -> tuple[Any, Any]:
    """The sort value and primary key of a cursor; raises InvalidFilter for any other text."""
    try:
        sort, key = json.loads(base64.b64decode(cursor.encode(), altchars=b"-_", validate=True))
        return _unpack(sort), _unpack(key)
    except (ValueError, TypeError, KeyError, AttributeError, binascii.Error, ArithmeticError):
        raise InvalidFilter("That is no cursor of a page; take it from Page.cursor as it is.") from None


def beyond(
    sort: sa.ColumnElement[Any], direction: str, after: Any, key: sa.ColumnElement[Any], last: Any
) -> sa.ColumnElement[bool]:
    """The condition for rows that come after the cursor's in the order of `Query`: absent values last."""
    further_key = key < last if direction == "desc" else key > last
    if after is None:
        return sa.and_(sort.is_(None), further_key)
    further = sort < after if direction == "desc" else sort > after
    return sa.or_(further, sa.and_(sort == after, further_key), sort.is_(None))


def _pack(value: Any) -> Any:
    match value:
        case None | bool() | int() | float() | str():
            return value
        case DateTime():
            return {"time": value.epoch_micros}
        case dt.datetime():
            return {"datetime": value.isoformat()}
        case dt.date():
            return {"date": value.isoformat()}
        case uuid.UUID():
            return {"uuid": str(value)}
        case Decimal():
            return {"decimal": str(value)}
    raise InvalidFilter(f"Pages cannot be ordered by a {type(value).__name__}.")


def _unpack(packed: Any) -> Any:
    if not isinstance(packed, dict):
        if isinstance(packed, list):
            raise TypeError(packed)
        return packed
    ((kind, text),) = packed.items()
    readers: dict[str, Any] = {
        "time": DateTime.from_epoch_micros,
        "datetime": dt.datetime.fromisoformat,
        "date": dt.date.fromisoformat,
        "uuid": uuid.UUID,
        "decimal": Decimal,
    }
    return readers[kind](text)
