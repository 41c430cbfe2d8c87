"""Reading: immutable queries, each of which becomes one SQL statement."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, Generic, Literal, TypeVar, overload

import sqlalchemy as sa

from confect_celery.errors import InvalidFilter, NotFound, NotUnique
from confect_celery.store.query import cursor as cursors
from confect_celery.store.query.catalog import Catalog
from confect_celery.store.query.document import Document
from confect_celery.store.query.fields import Field, FieldPath, Resolver
from confect_celery.store.query.filters import Condition, Filter
from confect_celery.store.query.kept import KeptStatements
from confect_celery.store.query.ordering import Direction, SortKey, beyond, order_by, sort_keys
from confect_celery.store.query.values import equals, is_uuid
from confect_celery.store.row import ScheduledFunction

__all__ = ["DatabaseReader", "Page", "Query", "TableReader"]

Row = TypeVar("Row")

_STREAMED_AT_ONCE: Final = 500
_MOST_ROWS: Final = 2**31


@dataclass(frozen=True, slots=True)
class Page(Generic[Row]):
    """Some `items`, and the `cursor` to ask for the next page with; `is_done` when there is none."""

    items: list[Row]
    cursor: str | None
    is_done: bool


@dataclass(frozen=True, eq=False)
class Query(Generic[Row]):
    """A query that is built step by step, each step a new query, and runs as one statement when asked for rows."""

    _connection: sa.Connection
    _resolver: Resolver
    _convert: Callable[[Any], Row]
    """Makes a row of what the database gave for the table's columns."""
    _where: tuple[sa.ColumnElement[bool], ...] = ()
    _present: frozenset[sa.Column[Any]] = frozenset()
    _by: tuple[Field | None, Direction] = (None, "asc")

    # -- building

    def filter(self, build: Callable[[Filter], Condition]) -> Query[Row]:
        """Only rows for which `build(q)` holds, besides earlier filters; see `Filter` for what `q` offers.

        Raises UnknownField, InvalidFilter.
        """
        condition = build(Filter(self._resolver, self._dialect))
        if not isinstance(condition, Condition):
            raise InvalidFilter(f"filter() got {condition!r}: build a condition with q.eq and its like, not with ==.")
        return self._query((*self._where, condition.clause), self._present | condition.present, self._by)

    def order(self, direction: Direction = "asc", by: FieldPath | None = None) -> Query[Row]:
        """Sorted by a field; by the id where none is given, or "creation": ids made here grow with the time.

        Rows that have no value there come last. Inside JSON, numbers (false and true as 0 and 1) come before texts.
        """
        if direction not in ("asc", "desc"):
            raise InvalidFilter(f"order() takes 'asc' or 'desc', not {direction!r}.")
        by_id = by is None or (by == "creation" and "creation" not in self._table.columns)
        query = self._query(
            self._where, self._present, (None if by is None or by_id else self._resolver.field(by), direction)
        )
        query._keys()  # refuses now what cannot be sorted by
        return query

    def _query(
        self,
        where: tuple[sa.ColumnElement[bool], ...],
        present: frozenset[sa.Column[Any]],
        by: tuple[Field | None, Direction],
    ) -> Query[Row]:
        return Query(self._connection, self._resolver, self._convert, where, present, by)

    # -- running

    def first(self) -> Row | None:
        """The first row, or None."""
        return next(iter(self.take(1)), None)

    def unique(self) -> Row | None:
        """The only row, or None; raises NotUnique when there are more."""
        found = self.take(2)
        if len(found) > 1:
            raise NotUnique(self._resolver.name)
        return found[0] if found else None

    def take(self, count: int) -> list[Row]:
        """At most `count` rows."""
        return self._rows(self._ordered(self._select()).limit(_size(count, 0)))

    def collect(self) -> list[Row]:
        """All rows."""
        return self._rows(self._ordered(self._select()))

    def __iter__(self) -> Iterator[Row]:
        """All rows, as they are when the loop begins: it may write to the table. PostgreSQL's come by and by."""
        options = {"yield_per": _STREAMED_AT_ONCE} if self._streams() else {}
        with self._connection.execute(self._ordered(self._select()), execution_options=options) as result:
            yield from map(self._convert, result if options else result.all())

    def count(self) -> int:
        """How many rows there are, counted by the database."""
        counted: int = self._connection.execute(self._select(sa.func.count())).scalar_one()
        return counted

    def paginate(self, size: int, cursor: str | None = None) -> Page[Row]:
        """`size` rows after `cursor`, from the start without one. Ask with the filters and the order it was got with.

        Rows added or removed meanwhile neither repeat nor hide others. Raises InvalidFilter for a cursor that is not
        of this table and order, and for a table without a primary key.
        """
        size = _size(size, 1)
        if not self._resolver.keys:
            raise InvalidFilter(f"{self._resolver.name!r} has no primary key, so its rows cannot be told apart.")
        keys = self._keys()
        field, direction = self._by
        order = repr((self._resolver.name, None if field is None else (field.column.key, field.path), direction))
        columns = [key.expression.label(f"_key_{number}") for number, key in enumerate(keys)]
        statement = self._ordered(self._select(*self._columns(), *columns))
        if cursor is not None:
            values = cursors.decode(order, cursor)
            cursors.check([(key.kind, key.nullable) for key in keys], values, self._dialect)
            statement = statement.where(beyond(keys, values))
        rows = self._connection.execute(statement.limit(size + 1)).all()
        items = [self._convert(row) for row in rows[:size]]
        if len(rows) <= size:
            return Page(items, None, True)
        return Page(items, cursors.encode(order, rows[size - 1][-len(keys) :]), False)

    # -- how

    @property
    def _dialect(self) -> str:
        return self._connection.dialect.name

    @property
    def _table(self) -> sa.Table:
        return self._resolver.table

    def _columns(self) -> list[sa.Column[Any]]:
        return list(self._table.columns)

    def _keys(self) -> list[SortKey]:
        return sort_keys(self._resolver, *self._by, self._present, self._dialect)

    def _select(self, *columns: sa.ColumnElement[Any]) -> sa.Select[Any]:
        return sa.select(*(columns or self._columns())).select_from(self._table).where(*self._where)

    def _ordered(self, statement: sa.Select[Any]) -> sa.Select[Any]:
        return statement.order_by(*order_by(self._keys(), self._dialect))

    def _rows(self, statement: sa.Select[Any]) -> list[Row]:
        return [self._convert(row) for row in self._connection.execute(statement)]

    def _streams(self) -> bool:
        """Whether rows can be fetched by and by while the same connection goes on to other statements.

        MySQL cannot do that at all, and SQLite would show the loop the rows that it has just added.
        """
        return self._dialect == "postgresql" and not getattr(
            self._connection.connection.driver_connection, "autocommit", False
        )


def _size(count: int, least: int) -> int:
    if not isinstance(count, int) or isinstance(count, bool) or count < least:
        raise InvalidFilter(f"A number of rows is an integer of at least {least}, not {count!r}.")
    return min(count, _MOST_ROWS)


@dataclass(frozen=True, eq=False)
class TableReader(Query[Row]):
    """A table to read: a query over all of its rows, and `get` and `find` by id."""

    _kept: KeptStatements | None = None

    def get(self, id: Any) -> Row:
        """The row with this id, a tuple for a composite key; raises NotFound."""
        row = self.find(id)
        if row is None:
            raise NotFound(self._resolver.name, id)
        return row

    def find(self, id: Any) -> Row | None:
        """The row with this id, or None."""
        found = self._kept.find(self._connection, id) if self._kept is not None else None
        rows = self._rows(self._select().where(self._is(id))) if found is None else list(map(self._convert, found))
        return rows[0] if rows else None

    def _is(self, id: Any) -> sa.ColumnElement[bool]:
        keys = self._resolver.keys
        values = id if isinstance(id, tuple) else (id,)
        if not keys:
            raise InvalidFilter(f"{self._resolver.name!r} has no primary key: find its rows by filter().")
        if len(keys) != len(values):
            raise InvalidFilter(f"{self._resolver.name!r} has a primary key of {len(keys)} columns, not {len(values)}.")
        return sa.and_(*(self._key_is(key, value) for key, value in zip(keys, values, strict=True)))

    def _key_is(self, key: sa.Column[Any], value: Any) -> sa.ColumnElement[bool]:
        # An id often comes from outside: what is no UUID is simply not found.
        if isinstance(key.type, sa.Uuid) and isinstance(value, str) and not is_uuid(value):
            return sa.false()
        return key.is_(None) if value is None else equals(key, [value], self._dialect)


class DatabaseReader:
    """The shop's tables and `_scheduled_functions`, to read, all in one transaction."""

    def __init__(self, connection: sa.Connection, catalog: Catalog) -> None:
        self._connection = connection
        self._catalog = catalog

    @overload
    def table(  # type: ignore[overload-overlap]  # a literal is the more special text
        self, name: Literal["_scheduled_functions"]
    ) -> TableReader[ScheduledFunction]: ...
    @overload
    def table(self, name: str) -> TableReader[Document]: ...
    def table(self, name: str) -> TableReader[Any]:
        """The table called `name`; raises UnknownTable."""
        resolver, convert, kept = self._catalog.open(name, self._connection)
        return TableReader(self._connection, resolver, convert, _kept=kept)
