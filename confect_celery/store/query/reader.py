"""Reading: immutable queries, each of which becomes one SQL statement."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Generic, Literal, TypeVar, overload

import sqlalchemy as sa

from confect_celery.errors import InvalidFilter, NotFound, NotUnique
from confect_celery.store.query import cursor as cursors
from confect_celery.store.query.catalog import Catalog
from confect_celery.store.query.document import Document
from confect_celery.store.query.filters import Condition, Field, FieldPath, Filter, Resolver
from confect_celery.store.query.system import SYSTEM_NAME
from confect_celery.store.query.values import from_column, to_column
from confect_celery.store.row import ScheduledFunction

__all__ = ["DatabaseReader", "Page", "Query", "TableReader"]

Row = TypeVar("Row")
Direction = Literal["asc", "desc"]


@dataclass(frozen=True, slots=True)
class Page(Generic[Row]):
    """Some `items`, and the `cursor` to ask for the next page with; `is_done` when there is none."""

    items: list[Row]
    cursor: str | None
    is_done: bool


@dataclass(frozen=True)
class Query(Generic[Row]):
    """A query that is built step by step, each step a new query, and runs as one statement when asked for rows."""

    _connection: sa.Connection
    _resolver: Resolver
    _convert: Callable[[sa.Row[Any]], Row]
    _where: tuple[sa.ColumnElement[bool], ...] = ()
    _by: tuple[Field, Direction] | None = None

    # -- building

    def filter(self, build: Callable[[Filter], Condition]) -> Query[Row]:
        """Only rows for which `build(q)` holds, besides earlier filters; see `Filter` for what `q` offers.

        Raises UnknownField, InvalidFilter.
        """
        condition = build(Filter(self._resolver, self._dialect))
        if not isinstance(condition, Condition):
            raise InvalidFilter(f"filter() got {condition!r}: build a condition with q.eq and its like, not with ==.")
        return replace(self, _where=(*self._where, condition.clause))

    def order(self, direction: Direction = "asc", by: FieldPath | None = None) -> Query[Row]:
        """Sorted by a field, by the id where none is given; rows that have no value there come last."""
        if direction not in ("asc", "desc"):
            raise InvalidFilter(f"order() takes 'asc' or 'desc', not {direction!r}.")
        field = Field(self._only_key()) if by is None else self._resolver.field(by)
        return replace(self, _by=(field, direction))

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
        return self._rows(self._ordered(self._select()).limit(count))

    def collect(self) -> list[Row]:
        """All rows."""
        return self._rows(self._ordered(self._select()))

    def __iter__(self) -> Iterator[Row]:
        """All rows, fetched by and by."""
        streamed = self._connection.execution_options(yield_per=500).execute(self._ordered(self._select()))
        return (self._convert(row) for row in streamed)

    def count(self) -> int:
        """How many rows there are, counted by the database."""
        counted: int = self._connection.execute(self._select(sa.func.count())).scalar_one()
        return counted

    def paginate(self, size: int, cursor: str | None = None) -> Page[Row]:
        """`size` rows after `cursor`, from the start without one.

        Rows added or removed meanwhile neither repeat nor hide others. Raises InvalidFilter for a cursor that is not
        this query's.
        """
        if size < 1:
            raise InvalidFilter(f"paginate() takes a size of at least 1, not {size}.")
        key = self._only_key()
        sort, direction = self._sort()
        statement = self._ordered(self._select(*self._columns(), sort.label("_sort")))
        if cursor is not None:
            after, last = cursors.decode(cursor)
            statement = statement.where(
                cursors.beyond(sort, direction, after, key, to_column(last, key, self._dialect))
            )
        rows = self._connection.execute(statement.limit(size + 1)).all()
        items = [self._convert(row) for row in rows[:size]]
        if len(rows) <= size:
            return Page(items, None, True)
        ended = rows[size - 1]
        return Page(items, cursors.encode(ended._mapping["_sort"], ended._mapping[key]), False)

    # -- how

    @property
    def _dialect(self) -> str:
        return self._connection.dialect.name

    @property
    def _table(self) -> sa.Table:
        return self._resolver.table

    def _columns(self) -> list[sa.Column[Any]]:
        return list(self._table.columns)

    def _select(self, *columns: sa.ColumnElement[Any]) -> sa.Select[Any]:
        return sa.select(*(columns or self._columns())).select_from(self._table).where(*self._where)

    def _sort(self) -> tuple[sa.ColumnElement[Any], Direction]:
        if self._by is None:
            return self._only_key(), "asc"
        field, direction = self._by
        return (field.column[field.path].as_string() if field.path else field.column), direction

    def _ordered(self, statement: sa.Select[Any]) -> sa.Select[Any]:
        keys = list(self._table.primary_key.columns)
        if self._by is None:
            return statement.order_by(*keys)
        column, direction = self._sort()
        turned = [column.desc() if direction == "desc" else column.asc()]
        turned += [key.desc() if direction == "desc" else key.asc() for key in keys if key is not column]
        if self._by[0].path or self._by[0].column.nullable:
            if self._dialect not in ("mysql", "mariadb"):
                turned[0] = turned[0].nulls_last()
            else:  # these do not know NULLS LAST
                turned.insert(0, column.is_(None).asc())
        return statement.order_by(*turned)

    def _rows(self, statement: sa.Select[Any]) -> list[Row]:
        return [self._convert(row) for row in self._connection.execute(statement)]

    def _only_key(self) -> sa.Column[Any]:
        keys = list(self._table.primary_key.columns)
        if len(keys) != 1:
            raise InvalidFilter(f"{self._resolver.name!r} has no single primary key: say by which field to order.")
        return keys[0]


class TableReader(Query[Row]):
    """A table to read: a query over all of its rows, and `get` and `find` by id."""

    def get(self, id: Any) -> Row:
        """The row with this id, a tuple for a composite key; raises NotFound."""
        row = self.find(id)
        if row is None:
            raise NotFound(self._resolver.name, id)
        return row

    def find(self, id: Any) -> Row | None:
        """The row with this id, or None."""
        rows = self._rows(self._select().where(self._is(id)))
        return rows[0] if rows else None

    def _is(self, id: Any) -> sa.ColumnElement[bool]:
        keys = list(self._table.primary_key.columns)
        values = id if isinstance(id, tuple) else (id,)
        if not keys or len(keys) != len(values):
            raise InvalidFilter(f"{self._resolver.name!r} has a primary key of {len(keys)} columns, not {len(values)}.")
        pairs = zip(keys, values, strict=True)
        return sa.and_(*(key == to_column(value, key, self._dialect) for key, value in pairs))


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
        resolver, convert = self._open(name)
        return TableReader(self._connection, resolver, convert)

    def _open(self, name: str) -> tuple[Resolver, Callable[[sa.Row[Any]], Any]]:
        resolver = self._catalog.resolver(name, self._connection)
        if name == SYSTEM_NAME:
            return resolver, self._catalog.system.to_scheduled_function
        columns = list(resolver.table.columns.keys())

        def convert(row: sa.Row[Any]) -> Document:
            return Document(name, {key: from_column(value) for key, value in zip(columns, row, strict=False)})

        return resolver, convert
