"""Rows in the text format of PostgreSQL's COPY: a line each, its columns parted by tabs.

psycopg can write such lines too, but it makes each value of each row into text by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import sqlalchemy as sa

from confect_celery.store.inserts import VARYING, Lot
from confect_celery.timing import DateTime

__all__ = ["lines"]

_NULL: Final = "\\N"
_ESCAPES: Final = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})


def lines(columns: Sequence[sa.Column[Any]], lot: Lot) -> str:
    """A line for each row, in the order of these columns."""
    fields = ["%s" if column.name in VARYING else _field(lot.shared.get(column.name)) for column in columns]
    line = "\t".join(fields) + "\n"
    escaped = lot._replace(ids=_escaped(lot.ids), args=_escaped(lot.args), options=_escaped(lot.options))
    return "".join([line % row for row in escaped.rows(_time, _NULL)])


def _escaped(texts: list[str]) -> list[str]:
    """Most texts of ids and arguments have nothing to be escaped, and so have most lots."""
    plain = all(text.isprintable() and "\\" not in text for text in texts)
    return texts if plain else [text.translate(_ESCAPES) for text in texts]


def _time(value: DateTime) -> str:
    return str(value.to_utc())


def _field(value: Any) -> str:
    if value is None:
        return _NULL
    text = _time(value) if isinstance(value, DateTime) else str(value)
    return text.translate(_ESCAPES).replace("%", "%%")
