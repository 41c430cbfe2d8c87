"""The order of a query: by what it sorts, and which rows come after a given one (keyset pagination)."""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.types import NullType

from confect_celery.errors import InvalidFilter
from confect_celery.store.query.fields import Field, Resolver
from confect_celery.store.query.json_place import json_place
from confect_celery.store.query.kinds import Kind, kind_of

__all__ = ["Direction", "SortKey", "beyond", "order_by", "sort_keys"]

Direction = Literal["asc", "desc"]


@dataclass(frozen=True, slots=True, eq=False)
class SortKey:
    """One expression to sort by. Its values are the driver's own, so that a cursor gives back exactly what it took."""

    expression: sa.ColumnElement[Any]
    descending: bool
    nullable: bool
    kind: Kind


def sort_keys(
    resolver: Resolver, by: Field | None, direction: Direction, present: Set[sa.Column[Any]], dialect: str
) -> list[SortKey]:
    """The keys of an order by a field, or by the id: the primary key always ends them, so no two rows are equal.

    The columns `present` are not NULL in any row, as the filter makes sure: an index can then serve the order.
    """
    descending = direction == "desc"
    found = [] if by is None else _of_field(by, descending, present, dialect)
    sorted_by = by.column if by is not None and not by.path else None
    keys = [key for key in resolver.keys if key is not sorted_by]
    return found + [_of_column(key, descending, False, dialect) for key in keys]


def order_by(keys: Sequence[SortKey], dialect: str) -> list[sa.ColumnElement[Any]]:
    """What to sort by: rows that have no value come last, whatever the direction."""
    clauses: list[sa.ColumnElement[Any]] = []
    for key in keys:
        turned = key.expression.desc() if key.descending else key.expression.asc()
        if key.nullable and dialect in ("mysql", "mariadb"):  # these do not know NULLS LAST
            clauses.append(key.expression.is_(None).asc())
        elif key.nullable:
            turned = turned.nulls_last()
        clauses.append(turned)
    return clauses


def beyond(keys: Sequence[SortKey], values: Sequence[Any]) -> sa.ColumnElement[bool]:
    """The condition for rows that come after the one with these values."""
    condition: sa.ColumnElement[bool] | None = None
    for key, value in reversed(list(zip(keys, values, strict=True))):
        column = key.expression
        if value is None:
            condition = sa.false() if condition is None else sa.and_(column.is_(None), condition)
            continue
        last: sa.ColumnElement[Any] = sa.bindparam(None, value, type_=NullType(), unique=True)
        further = column < last if key.descending else column > last
        condition = further if condition is None else sa.or_(further, sa.and_(column == last, condition))
        if key.nullable:
            condition = sa.or_(condition, column.is_(None))
        elif condition is not further:  # the range that an index can start from
            condition = sa.and_(column <= last if key.descending else column >= last, condition)
    return sa.false() if condition is None else condition


def _of_column(column: sa.Column[Any], descending: bool, nullable: bool, dialect: str) -> SortKey:
    return SortKey(_raw(_sortable(column, dialect)), descending, nullable, kind_of(column.type))


def _of_field(by: Field, descending: bool, present: Set[sa.Column[Any]], dialect: str) -> list[SortKey]:
    if not by.path:
        if kind_of(by.column.type) is Kind.JSON:
            raise InvalidFilter(f"{by.column.key!r} holds JSON: order by a place inside it, as in 'args.priority'.")
        return [_of_column(by.column, descending, bool(by.column.nullable) and by.column not in present, dialect)]
    place = json_place(by.column, by.path, dialect)
    number = sa.case(
        (place.holds("number"), place.sortable_number),
        (place.holds("boolean"), sa.case((place.boolean, 1), else_=0)),
    )
    text = sa.case((place.holds("text"), place.sortable_text))
    written = Kind.BYTES if dialect in ("mysql", "mariadb") else Kind.TEXT
    both = [
        SortKey(_raw(number), descending, True, Kind.NUMBER),
        SortKey(_raw(text), descending, True, written),
    ]
    return both[::-1] if descending else both


def _sortable(column: sa.Column[Any], dialect: str) -> sa.ColumnElement[Any]:
    """The column as it can be found again by the value that the driver gave for it."""
    if isinstance(column.type, sa.Float) and dialect == "postgresql":
        return sa.cast(column, sa.Double())  # a no-op but for `real`, whose 0.1 is not the driver's 0.1
    if isinstance(column.type, sa.Float) and dialect in ("mysql", "mariadb"):
        return column.op("+", return_type=sa.Double())(sa.literal_column("0e0"))
    if isinstance(column.type, sa.Enum) and dialect != "sqlite":
        # Their enums sort by the order they were declared in, and MySQL's compare by text all the same.
        return sa.cast(column, sa.CHAR() if dialect in ("mysql", "mariadb") else sa.Text())
    return column


def _raw(expression: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
    return sa.type_coerce(expression, NullType())
