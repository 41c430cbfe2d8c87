"""The filter language: `lambda q: q.and_(q.eq(q.field("name"), n), q.lt(q.field("due"), t))` as one SQL condition.

Every name is looked up in the table; nothing of what the caller says becomes SQL text.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

import sqlalchemy as sa

from confect_celery.errors import InvalidFilter
from confect_celery.store.query.compare import Comparison, absent, ordered, same
from confect_celery.store.query.fields import Field, FieldPath, Resolver
from confect_celery.store.query.json_place import JsonPlace, json_place, scalar
from confect_celery.store.query.kinds import Kind, kind_of
from confect_celery.store.query.patterns import column_matches, matches
from confect_celery.store.query.values import comparable, equals, operand

__all__ = ["Condition", "Filter"]

_MOST_VALUES: Final = 10_000
_UNORDERED: Final = (Kind.BOOLEAN, Kind.ENUM, Kind.JSON)


@dataclass(frozen=True, slots=True, eq=False)
class Condition:
    """What a filter amounts to. Where it holds, the columns `present` are not NULL."""

    clause: sa.ColumnElement[bool]
    present: frozenset[sa.Column[Any]] = frozenset()

    def __bool__(self) -> bool:
        raise InvalidFilter("A condition has no truth in Python: combine conditions with q.and_, q.or_ and q.not_.")


class Filter:
    """The `q` of a filter. Operands are fields and plain values; one that does not fit its column raises InvalidFilter.

    None equals an absent value: NULL, JSON's null, or a key that is not there. `neq` is the exact opposite of `eq`.
    Inside JSON a text, a number and a boolean never equal each other, and texts compare by code point; times, durations
    and UUIDs compare as the text that JSON holds, so instants only by `eq`, and only in the zone they were written in.
    Texts in a column are equal only if they are the same (unless its collation was declared otherwise), and sort by its
    collation.
    """

    def __init__(self, resolver: Resolver, dialect: str) -> None:
        self._resolver = resolver
        self._dialect = dialect

    def field(self, path: FieldPath) -> Field:
        """A field by its name, or a place inside JSON: `args.user_id`, `args.items.0.price`, or a tuple of names and
        indexes where a key holds a dot or is a number. Raises UnknownField, InvalidFilter."""
        return self._resolver.field(path)

    def eq(self, left: object, right: object) -> Condition:
        """Both are the same; two absent values are."""
        field, value = self._sides(left, right)
        if isinstance(value, Field):
            return Condition(same(field, value, self._dialect))
        return self._any_of(field, [value])

    def neq(self, left: object, right: object) -> Condition:
        """They differ; an absent value differs from every other."""
        return self.not_(self.eq(left, right))

    def lt(self, left: object, right: object) -> Condition:
        """`left` is less; never so for an absent value."""
        return self._order(left, right, operator.lt, operator.gt)

    def lte(self, left: object, right: object) -> Condition:
        """`left` is less or equal; never so for an absent value."""
        return self._order(left, right, operator.le, operator.ge)

    def gt(self, left: object, right: object) -> Condition:
        """`left` is greater; never so for an absent value."""
        return self._order(left, right, operator.gt, operator.lt)

    def gte(self, left: object, right: object) -> Condition:
        """`left` is greater or equal; never so for an absent value."""
        return self._order(left, right, operator.ge, operator.le)

    def in_(self, field: object, values: Iterable[object]) -> Condition:
        """The field equals one of the values, at most 10,000; not so with none given."""
        if isinstance(values, (str, bytes, Field)) or not isinstance(values, Iterable):
            raise InvalidFilter(f"q.in_ takes a list of values, not {values!r}.")
        listed = list(values)
        if not isinstance(field, Field) or any(isinstance(value, Field) for value in listed):
            return self.or_(*(self.eq(field, value) for value in listed))
        if len(listed) > _MOST_VALUES:
            raise InvalidFilter(f"q.in_ takes at most {_MOST_VALUES:,} values, not {len(listed):,}.")
        return self._any_of(self._own(field), listed)

    def matches(self, field: object, pattern: str) -> Condition:
        """A text, in a column or inside JSON, is as the pattern says: `*` stands for any text, `internal/users/*`.

        Upper and lower case differ. `\\*` is the asterisk itself. Never so for an absent value, or one that is no text.
        """
        if not isinstance(field, Field):
            raise InvalidFilter('q.matches takes a field first: q.matches(q.field("name"), "internal/users/*").')
        own = self._own(field)
        if own.path:
            place = json_place(own.column, own.path, self._dialect)
            clause = sa.and_(matches(place.text, pattern, self._dialect), place.holds("text"))
        else:
            clause = column_matches(own.column, pattern, self._dialect)
        return Condition(clause, frozenset((own.column,)))

    def and_(self, *conditions: Condition) -> Condition:
        """All hold; so it is with none given."""
        clauses = [self._clause(condition) for condition in conditions]
        return Condition(sa.and_(sa.true(), *clauses), frozenset().union(*(each.present for each in conditions)))

    def or_(self, *conditions: Condition) -> Condition:
        """At least one holds; not so with none given."""
        clauses = [self._clause(condition) for condition in conditions]
        present = frozenset.intersection(*(each.present for each in conditions)) if conditions else frozenset()
        return Condition(sa.or_(sa.false(), *clauses), present)

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

    def _sides(self, left: object, right: object) -> tuple[Field, Any]:
        if isinstance(left, Field):
            return self._own(left), self._own(right) if isinstance(right, Field) else right
        if isinstance(right, Field):
            return self._own(right), left
        raise InvalidFilter('One side must be a field: q.eq(q.field("name"), value).')

    def _own(self, field: Field) -> Field:
        if field.column.table is not self._resolver.table:
            raise InvalidFilter(f"{field.column} is a field of another table: use the q of this filter.")
        return field

    def _any_of(self, field: Field, values: Sequence[Any]) -> Condition:
        given = [value for value in values if value is not None]
        clauses = [self._equal(field, given)] if given else []
        if len(given) < len(values):
            return Condition(sa.or_(*clauses, absent(field, self._dialect)))
        if not given:
            return Condition(sa.false())
        implied = self._resolver.implied(field, given)
        conditions = [*clauses, *(column.is_not(None) for column in implied)]
        return Condition(sa.and_(*conditions), frozenset((field.column, *implied)))

    def _equal(self, field: Field, values: Sequence[Any]) -> sa.ColumnElement[bool]:
        if not field.path:
            return equals(field.column, values, self._dialect)
        place = json_place(field.column, field.path, self._dialect)
        clauses: list[sa.ColumnElement[bool]] = []
        texts = []
        for kind, value in map(scalar, values):
            if kind == "text" or isinstance(value, Decimal):
                texts.append(str(value))  # a decimal too: pydantic writes it so
            if kind == "number":
                left, right = place.against(value)
                number = sa.case((place.holds("number"), left == right), else_=sa.false())
                clauses.append(sa.and_(number, *place.document_has(value)))
            elif kind == "boolean":
                same = place.boolean if value else sa.not_(place.boolean)
                clauses.append(sa.case((place.holds("boolean"), same), else_=sa.false()))
        if texts:  # no CASE: nothing is cast, and an index on the expression can serve
            literals = [sa.literal(text, sa.Text()) for text in texts]
            known = place.document_has(texts[0]) if len(texts) == 1 else []
            clauses.append(sa.and_(_one_of(place.text, literals), place.holds("text"), *known))
        return sa.or_(*clauses)

    def _order(self, left: object, right: object, compare: Comparison, mirrored: Comparison) -> Condition:
        field, value = self._sides(left, right)
        if not isinstance(left, Field):
            compare = mirrored
        if isinstance(value, Field):
            both = frozenset((field.column, value.column))
            return Condition(ordered(compare, field, value, self._dialect), both)
        if value is None or isinstance(value, bool):
            raise InvalidFilter(f"{value!r} has no order to compare by.")
        if field.path:
            place = json_place(field.column, field.path, self._dialect)
            return Condition(_inside(place, compare, value), frozenset((field.column,)))
        if kind_of(field.column.type) in _UNORDERED:
            raise InvalidFilter(f"{field.column.key!r} has no order to compare by.")
        bound = operand(value, field.column, self._dialect)
        return Condition(compare(comparable(field.column, value, self._dialect), bound), frozenset((field.column,)))


def _one_of(expression: sa.ColumnElement[Any], values: Sequence[sa.ColumnElement[Any]]) -> sa.ColumnElement[bool]:
    return expression == values[0] if len(values) == 1 else expression.in_(values)


def _inside(place: JsonPlace, compare: Comparison, value: object) -> sa.ColumnElement[bool]:
    kind, plain = scalar(value, ordered=True)
    if kind == "text":
        return sa.and_(compare(place.sortable_text, sa.literal(plain, sa.Text())), place.holds("text"))
    left, right = place.against(plain)
    return sa.case((place.holds("number"), compare(left, right)), else_=sa.false())
