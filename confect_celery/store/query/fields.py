"""Fields: columns and places inside JSON columns, found by the names that documents have."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa

from confect_celery.errors import InvalidFilter, UnknownField
from confect_celery.store.query.json_place import Path
from confect_celery.store.query.operands import checked_text
from confect_celery.store.query.values import is_json

__all__ = ["Field", "FieldPath", "Resolver"]

FieldPath = str | tuple[str | int, ...]
"""A dotted path, in which a number is an index, or a tuple of keys (texts) and indexes (integers)."""

_INDEX: Final = re.compile(r"0|[1-9][0-9]{0,8}", re.ASCII)


@dataclass(frozen=True, slots=True, eq=False)
class Field:
    """A column, or a place inside a JSON column. Compare it with `q.eq` and its like, not with `==`."""

    column: sa.Column[Any]
    path: Path = ()

    def __bool__(self) -> bool:
        raise InvalidFilter('A field has no truth in Python: say q.eq(q.field("verified"), True).')


class Resolver:
    """Finds the columns of one table by the names its documents have."""

    def __init__(self, name: str, table: sa.Table) -> None:
        self.name = name
        self.table = table
        self.keys: list[sa.Column[Any]] = list(table.primary_key.columns)

    def renamed(self, parts: Path) -> Path:
        """Where the field of that path is kept."""
        return parts

    def implied(self, field: Field, values: Sequence[object]) -> list[sa.Column[Any]]:
        """Columns that are not NULL where `field` equals one of the values: said, it lets the database use an index."""
        return []

    def column(self, name: str | int) -> sa.Column[Any]:
        """The column of that name; raises UnknownField."""
        columns = self.table.columns
        found = columns.get(name) if isinstance(name, str) else None  # it takes a place as well
        if found is None:
            raise UnknownField(self.name, str(name), difflib.get_close_matches(str(name), columns.keys(), 3))
        return found

    def field(self, path: FieldPath) -> Field:
        """The field at a path; raises UnknownField, and InvalidFilter for a path that leads nowhere."""
        parts = self._parts(path)
        first, *inner = self.renamed(parts)
        column = self.column(first)
        if inner and not is_json(column.type):
            raise InvalidFilter(f"{'.'.join(map(str, parts))}: {first!r} of {self.name!r} holds no JSON to look into.")
        for part in inner:
            if isinstance(part, str):
                checked_text(part)
            elif type(part) is not int or not 0 <= part < 2**31:
                raise InvalidFilter(f"{part!r} is neither a key nor an index.")
        return Field(column, tuple(inner))

    def _parts(self, path: FieldPath) -> Path:
        match path:
            case str():
                first, *inner = path.split(".")
                if path in self.table.columns or not inner:
                    return (path,)
                if "" in inner and first in self.table.columns:
                    raise InvalidFilter(f"{path!r} has an empty step: give an empty key in a tuple, if it is meant.")
                return (first, *(int(part) if _INDEX.fullmatch(part) else part for part in inner))
            case (str(), *_) if isinstance(path, tuple):
                return path
        raise InvalidFilter(f"{path!r} is no field: use 'args.user_id' or ('args', 'user_id').")
