"""What the texts of the statements are made of: what a caller says of a row, the states, and what came of it."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.types import TypeDecorator

from confect_celery.store.prepared import Answer
from confect_celery.store.row import StateKind

__all__ = ["AnyAttempt", "AnyId", "checked", "counts", "literal", "one", "state_is"]


class AnyId(TypeDecorator[str]):
    """What somebody says is an id, a message for example: a text that no database can hold is that of no row."""

    impl = sa.String
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: sa.Dialect) -> str:
        """The empty text, which is no row's id, in its place."""
        if value is not None and value.isascii() and "\0" not in value:  # as ours are
            return value
        if value is None or "\0" in value or any("\ud800" <= char <= "\udfff" for char in value):
            return ""
        return value


class AnyAttempt(TypeDecorator[int]):
    """What somebody says is an attempt: a number that the column cannot hold is that of no row."""

    impl = sa.Integer
    cache_ok = True

    def process_bind_param(self, value: int | None, dialect: sa.Dialect) -> int:
        """-1, which no row ever has, in its place."""
        return value if value is not None and 0 <= value < 2**31 else -1


def literal(kind: StateKind) -> sa.ColumnElement[str]:
    """The state, in the SQL's text."""
    # Never bound: under a generic plan PostgreSQL could not match a bound state to a partial index.
    return sa.literal_column(f"'{kind.value}'", sa.String)


def state_is(column: sa.ColumnElement[str], kind: StateKind) -> sa.ColumnElement[bool]:
    """Whether the column holds this state."""
    return column == literal(kind)


def counts(*changes: sa.CTE) -> sa.Select[Any]:
    """How many rows each of these changed, in one row."""
    found = [sa.select(sa.func.count()).select_from(each).scalar_subquery() for each in changes]
    return sa.select(found[0]).add_columns(*found[1:])


def checked(change: sa.CTE, many: sa.ColumnElement[int]) -> sa.Select[Any]:
    """An error where it did not change so many rows: a division by zero."""
    return sa.select(sa.literal_column("1") / sa.case((sa.func.count() == many, 1), else_=0)).select_from(change)


def one(result: sa.CursorResult[Any] | Answer) -> bool:
    """Whether a transition by id happened. It changes one row or none; more is a bug and raises."""
    if result.rowcount > 1:
        raise AssertionError(f"a transition by id changed {result.rowcount} rows")
    return result.rowcount == 1
