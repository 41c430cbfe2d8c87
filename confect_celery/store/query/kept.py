"""What is done with one row, a new one or one by its id: statements that are made once and kept.

SQLAlchemy makes the same of a statement that is built anew each time, for several times the work that it is to the
database. What is not plain, as a value that is SQL or a default that the database makes, is left to it.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from inspect import Parameter, signature
from types import NoneType
from typing import Any, Final, Protocol

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.sql.schema import CallableColumnDefault, ScalarElementColumnDefault

from confect_celery.store.prepared import Answer, Prepared
from confect_celery.store.query.kinds import Kind, kind_of
from confect_celery.store.query.operands import checked_number, checked_text

__all__ = ["Execute", "KeptStatements", "is_sql"]

_MOST_KEPT: Final = 32
"""So many of a table: who changes other fields each time would have the server remember them all."""

_BY_CHARACTER: Final = ("postgresql", "sqlite")
"""Where texts are equal only if each character is."""

_NEVER_SQL: Final = frozenset({str, int, NoneType})

_REFUSED: Final = (SQLAlchemyError, TypeError, ValueError, LookupError, AttributeError, ArithmeticError)
"""Of a value that its column does not take."""


class Execute(Protocol):
    """Executes a statement on a connection, in the quickest way there is."""

    def __call__(self, connection: sa.Connection, statement: Prepared, parameters: Mapping[str, Any], /) -> Answer:
        """As `Prepared.execute` does."""
        ...


class KeptStatements:
    """Those of one table. Each answers None where something is not plain, and has done nothing then."""

    def __init__(self, table: sa.Table, execute: Execute) -> None:
        self._table = table
        self._execute = execute
        self._columns = list(table.columns)
        self._keys = list(table.primary_key.columns)
        self._key = self._keys[0] if len(self._keys) == 1 else None
        self._kept: dict[tuple[str, ...], Prepared | None] = {}
        self._of_bytes = [column.key for column in self._columns if kind_of(column.type) is Kind.BYTES]
        self._defaults = {column.key: made for column in self._columns if (made := _default(column)) is not None}

    @property
    def fit(self) -> bool:
        """Whether the table has as many columns as it had: a mapped class may be given more."""
        return len(self._columns) == len(self._table.columns)

    def insert(self, connection: sa.Connection, values: Mapping[str, Any]) -> list[Any] | None:
        """Add a row of these values; gives back its key, column by column."""
        made = [name for name in self._defaults if name not in values]
        if not self._is_plain(values) or self._known(connection, ("insert", *values, *made), self._insert) is None:
            return None  # before any default is made: SQLAlchemy makes them itself
        values = {**values, **{name: self._defaults[name]() for name in made}}
        if self._write(connection, "insert", self._insert, values, None) is None:
            return None
        return [values[key.key] for key in self._keys]

    def update(self, connection: sa.Connection, id: Any, values: Mapping[str, Any]) -> Answer | None:
        """Change these fields of the row."""
        key = self._bound(connection, id)
        return None if key is None else self._write(connection, "update", self._update, values, key)

    def find(self, connection: sa.Connection, id: Any) -> list[list[Any]] | None:
        """The row with this id, if there is one: its values in the order of the table's columns."""
        key = self._bound(connection, id)
        statement = None if key is None else self._known(connection, ("find",), self._find)
        if statement is None:
            return None
        try:
            rows = self._execute(connection, statement, {"key": key}).rows
            return [statement.typed(connection.dialect, row) for row in rows]
        except ValueError:  # what cannot be read, SQLAlchemy tells in its own words
            return None

    def _write(
        self,
        connection: sa.Connection,
        what: str,
        make: Callable[[Sequence[str]], sa.ClauseElement | None],
        values: Mapping[str, Any],
        key: Any,
    ) -> Answer | None:
        if not self._is_plain(values):
            return None
        statement = self._known(connection, (what, *values), make)
        if statement is None:
            return None
        parameters = {f"p{place}": value for place, value in enumerate(values.values())}
        if key is not None:
            parameters["key"] = key
        try:
            statement.bound(connection.dialect, parameters)
        except _REFUSED:
            return None
        return self._execute(connection, statement, parameters)

    def _is_plain(self, values: Mapping[str, Any]) -> bool:
        if not values or any(map(is_sql, values.values())):
            return False
        # What is no bytes the driver finds out only when a part has been sent.
        return all(isinstance(values.get(name), (bytes, NoneType)) for name in self._of_bytes)

    def _known(
        self, connection: sa.Connection, of: tuple[str, ...], make: Callable[[Sequence[str]], sa.ClauseElement | None]
    ) -> Prepared | None:
        """The statement of this kind for these fields; None where it is not plain, or too many are kept."""
        if of in self._kept:
            return self._kept[of]
        if len(self._kept) >= _MOST_KEPT:
            return None
        made = make(of[1:])
        prepared = None if made is None else Prepared(made)
        try:
            if prepared is not None:
                prepared.text(connection.dialect)
        except _REFUSED:
            prepared = None
        self._kept[of] = prepared
        return prepared

    def _insert(self, names: Sequence[str]) -> sa.ClauseElement | None:
        missing = [column for column in self._columns if column.key not in names]
        if any(column.primary_key or column.default is not None for column in missing):  # it is SQL, or a sequence
            return None
        return sa.insert(self._table).values(self._parameters(names)).inline()

    def _update(self, names: Sequence[str]) -> sa.ClauseElement | None:
        if any(column.onupdate is not None and column.key not in names for column in self._columns):
            return None
        return sa.update(self._table).where(self._is_key()).values(self._parameters(names))

    def _find(self, _: Sequence[str]) -> sa.ClauseElement:
        return sa.select(*self._columns).where(self._is_key())

    def _parameters(self, names: Sequence[str]) -> dict[str, sa.BindParameter[Any]]:
        types = {column.key: column.type for column in self._columns}
        return {name: sa.bindparam(f"p{place}", type_=types[name]) for place, name in enumerate(names)}

    def _is_key(self) -> sa.ColumnElement[bool]:
        assert self._key is not None
        # A number may be wider than the column: then it equals nothing there.
        type_ = sa.BigInteger() if isinstance(self._key.type, sa.Integer) else self._key.type
        return self._key == sa.bindparam("key", type_=type_)

    def _bound(self, connection: sa.Connection, id: Any) -> Any:
        """The id as its column takes it; None for what SQLAlchemy or nobody makes something of."""
        if self._key is None or connection.dialect.name not in _BY_CHARACTER:
            return None
        type_ = self._key.type
        try:
            if kind_of(type_) is Kind.TEXT and type(id) is str:
                return checked_text(id)
            if isinstance(type_, sa.Integer) and type(id) is int:
                return checked_number(id)
            if isinstance(type_, sa.Uuid) and type_.as_uuid and type(id) in (str, uuid.UUID):
                return id if type(id) is uuid.UUID else uuid.UUID(id)
        except ValueError:  # InvalidFilter is one
            return None
        return None


def _default(column: sa.Column[Any]) -> Callable[[], Any] | None:
    """What makes the column's default, where Python makes it and needs nothing for it."""
    default = column.default
    if isinstance(default, ScalarElementColumnDefault):
        return lambda: default.arg
    if isinstance(default, CallableColumnDefault):
        call: Any = default.arg
        return partial(call, None) if _asks_for_nothing(call) else None
    return None


def _asks_for_nothing(call: Any) -> bool:
    own = getattr(call, "__wrapped__", None)  # SQLAlchemy wraps what takes no context
    if own is None:
        return False
    try:
        parameters = signature(own).parameters.values()
    except (TypeError, ValueError):  # not written in Python
        return True
    stars = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)
    return all(each.default is not Parameter.empty or each.kind in stars for each in parameters)


def is_sql(value: Any) -> bool:
    """Whether the value is an expression for the database to work out."""
    return type(value) not in _NEVER_SQL and (
        isinstance(value, sa.ClauseElement) or hasattr(value, "__clause_element__")
    )
