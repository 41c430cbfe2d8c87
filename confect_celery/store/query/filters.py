"""The filter language: `lambda q: q.and_(q.eq(q.field("name"), n), q.lt(q.field("due"), t))` as one SQL condition.

Every name is looked up in the table; nothing of what the caller says becomes SQL text.
"""

from __future__ import annotations

import datetime as dt
import difflib
import enum
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

import sqlalchemy as sa

from confect_celery.errors import InvalidFilter, UnknownField
from confect_celery.store.query.values import to_column
from confect_celery.timing import DateTime

__all__ = ["Condition", "Field", "Filter", "Resolver"]

FieldPath = str | tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Field:
    """A column, or a place inside a JSON column. Compare it with `q.eq` and its like, not with `==`."""

    column: sa.Column[Any]
    path: tuple[str | int, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Condition:
    """What a filter amounts to."""

    clause: sa.ColumnElement[bool]

    def __bool__(self) -> bool:
        raise InvalidFilter("A condition has no truth in Python: combine conditions with q.and_, q.or_ and q.not_.")


class Resolver:
    """Finds the columns of one table by the names its documents have."""

    def __init__(self, name: str, table: sa.Table) -> None:
        self.name = name
        self.table = table

    def renamed(self, parts: tuple[str, ...]) -> tuple[str, ...]:
        """Where the field of that path is kept."""
        return parts

    def implied(self, field: Field, value: object) -> list[sa.ColumnElement[bool]]:
        """What else holds of a row whose `field` equals `value`, said to the database so that it may use an index."""
        return []

    def field(self, path: FieldPath) -> Field:
        """The field at a dotted path, or at a tuple of names where a key holds a dot itself.

        Raises UnknownField, and InvalidFilter for a path into a column that is not JSON.
        """
        parts = tuple(path.split(".")) if isinstance(path, str) else tuple(path)
        first, *inner = self.renamed(parts)
        column = self.table.columns.get(first)
        if column is None:
            raise UnknownField(self.name, first, difflib.get_close_matches(first, list(self.table.columns.keys()), 3))
        if inner and not isinstance(column.type, sa.JSON):
            raise InvalidFilter(f"{'.'.join(map(str, parts))}: {first!r} of {self.name!r} holds no JSON to look into.")
        return Field(column, tuple(int(part) if part.isdigit() else part for part in inner))


_ORDERED: Final = (str, int, float, Decimal, dt.datetime, dt.date, dt.timedelta, uuid.UUID)


class Filter:
    """The `q` of a filter. Operands are fields and plain values; an unusable one raises InvalidFilter.

    None equals an absent value: NULL, JSON's null, or a key that is not there. `neq` is the exact opposite of `eq`.
    """

    def __init__(self, resolver: Resolver, dialect: str) -> None:
        self._resolver = resolver
        self._dialect = dialect

    def field(self, path: FieldPath) -> Field:
        """A field by its name, `args.user_id` for a place inside JSON, or a tuple of names; raises UnknownField."""
        return self._resolver.field(path)

    def eq(self, left: object, right: object) -> Condition:
        """Both are the same."""
        field, value = self._sides(left, right)
        if value is None:
            return Condition(self._absent(field))
        return Condition(sa.and_(self._compare(field, value, "eq"), *self._resolver.implied(field, value)))

    def neq(self, left: object, right: object) -> Condition:
        """They differ; an absent value differs from every other."""
        return self.not_(self.eq(left, right))

    def lt(self, left: object, right: object) -> Condition:
        """`left` is less; never so for an absent value."""
        return self._order(left, right, "lt", "gt")

    def lte(self, left: object, right: object) -> Condition:
        """`left` is less or equal; never so for an absent value."""
        return self._order(left, right, "le", "ge")

    def gt(self, left: object, right: object) -> Condition:
        """`left` is greater; never so for an absent value."""
        return self._order(left, right, "gt", "lt")

    def gte(self, left: object, right: object) -> Condition:
        """`left` is greater or equal; never so for an absent value."""
        return self._order(left, right, "ge", "le")

    def in_(self, field: object, values: Iterable[object]) -> Condition:
        """The field equals one of the values."""
        return self.or_(*(self.eq(field, value) for value in values))

    def and_(self, *conditions: Condition) -> Condition:
        """All hold; so it is with none given."""
        return Condition(sa.and_(sa.true(), *(self._clause(condition) for condition in conditions)))

    def or_(self, *conditions: Condition) -> Condition:
        """At least one holds; not so with none given."""
        return Condition(sa.or_(sa.false(), *(self._clause(condition) for condition in conditions)))

    def not_(self, condition: Condition) -> Condition:
        """It does not hold."""
        # Where a value is absent a comparison is NULL: it does not hold, so its opposite does.
        return Condition(sa.not_(sa.func.coalesce(self._clause(condition), sa.false())))

    # -- how

    @staticmethod
    def _clause(condition: object) -> sa.ColumnElement[bool]:
        if not isinstance(condition, Condition):
            raise InvalidFilter(f"{condition!r} is no condition: build it with q.eq, q.lt and their like, not with ==.")
        return condition.clause

    @staticmethod
    def _sides(left: object, right: object) -> tuple[Field, Any]:
        if isinstance(left, Field):
            return left, right
        if isinstance(right, Field):
            return right, left
        raise InvalidFilter('One side must be a field: q.eq(q.field("name"), value).')

    def _order(self, left: object, right: object, operator: str, mirrored: str) -> Condition:
        field, value = self._sides(left, right)
        if not isinstance(left, Field):
            operator = mirrored
        plain = to_column(value, None, self._dialect)
        if not isinstance(value, Field) and (isinstance(plain, bool) or not isinstance(plain, _ORDERED)):
            raise InvalidFilter(f"{value!r} has no order to compare by.")
        return Condition(self._compare(field, value, operator))

    def _compare(self, field: Field, value: Any, operator: str) -> sa.ColumnElement[bool]:
        if isinstance(value, Field):
            left, right = self._plain(field), self._plain(value)
        else:
            left, right = self._typed(field, value)
        method = {"eq": "__eq__", "lt": "__lt__", "le": "__le__", "gt": "__gt__", "ge": "__ge__"}[operator]
        compared: sa.ColumnElement[bool] = getattr(left, method)(right)
        guard = self._json_kind(field, value)
        if guard is None:
            return compared
        if isinstance(value, str):
            return sa.and_(compared, guard)  # no cast: an index on the expression can serve it
        # In a CASE the database may not cast a value of another kind before the guard has ruled it out.
        return sa.case((guard, compared), else_=sa.false())

    @staticmethod
    def _plain(field: Field) -> sa.ColumnElement[Any]:
        return field.column[field.path].as_string() if field.path else field.column

    def _typed(self, field: Field, value: Any) -> tuple[sa.ColumnElement[Any], Any]:
        if not field.path:
            if isinstance(field.column.type, sa.JSON):
                raise InvalidFilter(
                    f"{field.column.name!r} holds JSON: compare a place inside it, as in 'args.user_id'."
                )
            return field.column, to_column(value, field.column, self._dialect)
        inside = field.column[field.path]
        if isinstance(value, enum.Enum):
            value = value.value
        if isinstance(value, bool):
            return inside.as_boolean(), value
        if isinstance(value, int):
            # As a float where it fits, so that 1 finds 1.0: JSON knows numbers only.
            return (inside.as_float(), float(value)) if abs(value) < 2**53 else (inside.as_numeric(38, 0), value)
        if isinstance(value, (float, Decimal)):
            return inside.as_float(), float(value)
        if isinstance(value, DateTime):
            return inside.as_string(), value.to_iso()
        if isinstance(value, uuid.UUID):
            return inside.as_string(), str(value)
        if isinstance(value, str):
            return inside.as_string(), value
        raise InvalidFilter(
            f"{value!r} cannot be compared with a place inside JSON: use a text, number, boolean or None."
        )

    def _json_kind(self, field: Field, value: Any) -> sa.ColumnElement[bool] | None:
        """The condition under which the JSON value is of the operand's kind: "1" is not 1, and true is neither."""
        if not field.path or isinstance(value, Field):
            return None
        kinds = _JSON_KINDS[self._dialect if self._dialect in _JSON_KINDS else "mysql"]
        plain = value.value if isinstance(value, enum.Enum) else value
        wanted = (
            "boolean" if isinstance(plain, bool) else "number" if isinstance(plain, (int, float, Decimal)) else "text"
        )
        return self._json_type(field).in_(kinds[wanted])

    def _json_type(self, field: Field) -> sa.ColumnElement[str]:
        if self._dialect == "sqlite":
            return sa.func.json_type(field.column, _sqlite_path(field.path))
        inside = field.column[field.path]
        if self._dialect == "postgresql":
            return sa.func.jsonb_typeof(inside)
        return sa.func.json_type(sa.func.json_extract(field.column, _sqlite_path(field.path)))

    def _absent(self, field: Field) -> sa.ColumnElement[bool]:
        if not field.path:
            return field.column.is_(None)
        kind = self._json_type(field)
        return sa.or_(kind.is_(None), sa.func.lower(kind) == "null")


_JSON_KINDS: Final[dict[str, dict[str, list[str]]]] = {
    "sqlite": {"boolean": ["true", "false"], "number": ["integer", "real"], "text": ["text"]},
    "postgresql": {"boolean": ["boolean"], "number": ["number"], "text": ["string"]},
    "mysql": {
        "boolean": ["BOOLEAN"],
        "number": ["INTEGER", "UNSIGNED INTEGER", "DOUBLE", "DECIMAL"],
        "text": ["STRING"],
    },
}


def _sqlite_path(path: tuple[str | int, ...]) -> str:
    return "$" + "".join(
        f"[{part}]" if isinstance(part, int) else '."' + part.replace('"', '\\"') + '"' for part in path
    )
