"""Rows in the text format of PostgreSQL's COPY: a line each, its columns parted by tabs.

psycopg can write such lines too, but it makes each value of each row into text by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import sqlalchemy as sa

from confect_celery.store.inserts import ARGS_AT, Lot
from confect_celery.timing import DateTime

__all__ = ["lines"]

_NULL: Final = "\\N"
_ESCAPES: Final = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})


def lines(columns: Sequence[sa.Column[Any]], lot: Lot) -> str:
    """The lines of all rows, in the order of these columns."""
    fields = [_field(lot.shared.get(column.name)) for column in columns]
    before = "\t".join(["", *fields[1:ARGS_AT], ""])
    after = "\t".join(["", *fields[ARGS_AT + 1 :]]) + "\n"
    ids, texts = lot.ids, lot.args
    # Only a backslash can stand in the text of JSON, and seldom does one in all of them.
    if any("\\" in args for args in texts):
        texts = [args.translate(_ESCAPES) for args in texts]
    if not all(id.isprintable() and "\\" not in id for id in ids):
        ids = [id.translate(_ESCAPES) for id in ids]
    return "".join([f"{id}{before}{args}{after}" for id, args in zip(ids, texts, strict=True)])


def _field(value: Any) -> str:
    if value is None:
        return _NULL
    return str(value.to_utc() if isinstance(value, DateTime) else value).translate(_ESCAPES)
