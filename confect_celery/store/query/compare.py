"""Fields compared with fields."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any, Final

import sqlalchemy as sa

from confect_celery.errors import InvalidFilter
from confect_celery.store.query.fields import Field
from confect_celery.store.query.json_place import JsonKind, JsonPlace, json_place
from confect_celery.store.query.kinds import Kind, kind_of
from confect_celery.store.query.values import is_json
from confect_celery.store.schema import UtcTime

__all__ = ["Comparison", "absent", "ordered", "same"]

Comparison = Callable[[Any, Any], sa.ColumnElement[bool]]

_IN_JSON: Final[dict[Kind, JsonKind]] = {Kind.TEXT: "text", Kind.NUMBER: "number", Kind.BOOLEAN: "boolean"}
_UNORDERED: Final = (Kind.BOOLEAN, Kind.ENUM, Kind.OTHER)


def absent(field: Field, dialect: str) -> sa.ColumnElement[bool]:
    """There is NULL, JSON's null, or nothing."""
    if is_json(field.column.type):
        return json_place(field.column, field.path, dialect).absent()
    return field.column.is_(None)


def same(left: Field, right: Field, dialect: str) -> sa.ColumnElement[bool]:
    """Both fields have equal values, or both none; an array or object in JSON equals nothing.

    Raises InvalidFilter for columns of different kinds.
    """
    kinds = _kinds(left, right)
    if not left.path and not right.path:
        return _plain(left, dialect).is_not_distinct_from(_plain(right, dialect))
    equal = [_inside(_IN_JSON[kind], operator.eq, left, right, dialect) for kind in kinds]
    return sa.or_(*equal, sa.and_(absent(left, dialect), absent(right, dialect)))


def ordered(compare: Comparison, left: Field, right: Field, dialect: str) -> sa.ColumnElement[bool]:
    """`compare`, a less or greater, holds of the fields; never so where one is absent, or one a text and one a number.

    Raises InvalidFilter for columns of different kinds, and for what has no order.
    """
    kinds = [kind for kind in _kinds(left, right) if kind not in _UNORDERED]
    if not kinds:
        raise InvalidFilter(f"{_named(left)} and {_named(right)} have no order to compare by.")
    if not left.path and not right.path:
        return compare(_plain(left, dialect), _plain(right, dialect))
    return sa.or_(*(_inside(_IN_JSON[kind], compare, left, right, dialect) for kind in kinds))


def _kinds(left: Field, right: Field) -> list[Kind]:
    """The kinds of values that both can have."""
    kinds = [kind_of(field.column.type) for field in (left, right) if not field.path]
    if Kind.JSON in kinds or len(set(kinds)) > 1:
        raise InvalidFilter(f"{_named(left)} and {_named(right)} are of different kinds, and cannot be compared.")
    if len(kinds) == 1 and kinds[0] not in _IN_JSON:
        raise InvalidFilter(f"{_named(left)} and {_named(right)} cannot be compared: JSON holds no such values.")
    return kinds[:1] or list(_IN_JSON)


def _inside(kind: JsonKind, compare: Comparison, left: Field, right: Field, dialect: str) -> sa.ColumnElement[bool]:
    places = [json_place(field.column, field.path, dialect) if field.path else None for field in (left, right)]
    a, b = (
        field.column if place is None else _value(kind, place)
        for place, field in zip(places, (left, right), strict=True)
    )
    guard = sa.and_(*(place.holds(kind) for place in places if place is not None))
    return sa.case((guard, compare(a, b)), else_=sa.false())


def _value(kind: JsonKind, place: JsonPlace) -> sa.ColumnElement[Any]:
    return place.sortable_text if kind == "text" else place.number if kind == "number" else place.boolean


def _plain(field: Field, dialect: str) -> sa.ColumnElement[Any]:
    column, kind = field.column, kind_of(field.column.type)
    if kind is Kind.ENUM:
        return sa.cast(column, sa.String())  # each enum is a type of its own to PostgreSQL
    if kind is Kind.TIME and dialect == "postgresql":
        zoned = isinstance(column.type, UtcTime) or getattr(column.type, "timezone", False)
        return column if zoned else sa.func.timezone("UTC", column)  # else the session's zone would count
    return column


def _named(field: Field) -> str:
    return ".".join(map(str, (field.column.key, *field.path)))
