"""Writing: insert, patch, replace, delete."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NoReturn, TypeVar, overload

import sqlalchemy as sa
from pydantic import BaseModel
from sqlalchemy.sql.schema import CallableColumnDefault, ColumnElementColumnDefault, ScalarElementColumnDefault

from confect_celery.errors import NotFound, SystemTableReadOnly
from confect_celery.store.ids import new_id
from confect_celery.store.query.catalog import Catalog
from confect_celery.store.query.document import Document
from confect_celery.store.query.kept import is_sql
from confect_celery.store.query.reader import DatabaseReader, TableReader
from confect_celery.store.query.system import SYSTEM_NAME
from confect_celery.store.query.values import to_column
from confect_celery.store.row import ScheduledFunction
from confect_celery.timing import DateTime

__all__ = ["DatabaseWriter", "SystemTableWriter", "TableWriter"]

Row = TypeVar("Row")
Fields = Mapping[str, Any] | BaseModel


@dataclass(frozen=True, eq=False)
class TableWriter(TableReader[Row]):
    """A table to read and to write. Unknown field names raise UnknownField; what the database refuses comes through as
    SQLAlchemy's error."""

    def insert(self, document: Fields) -> Any:
        """Add a row; gives back its id, made here (UUIDv7) where the key is a text or UUID without a default.

        The id of a composite key is a tuple; without a primary key it is None.
        """
        values = self._values(document)
        keys = self._resolver.keys
        for key in keys:
            if key.key in values and values[key.key] is None:
                del values[key.key]  # a model's `id: int | None = None`
        if len(keys) == 1 and keys[0].key not in values and _needs_id(keys[0]):
            values[keys[0].key] = _id_for(keys[0], new_id(DateTime.now()))
        made = tuple(self._inserted(values))
        return made[0] if len(made) == 1 else made or None

    def _inserted(self, values: dict[str, Any]) -> Sequence[Any]:
        made = self._kept.insert(self._connection, values) if self._kept is not None else None
        if made is not None:
            return made
        statement = sa.insert(self._table)
        if not values or any(map(is_sql, values.values())):
            return self._connection.execute(statement.values(values)).inserted_primary_key or ()
        return self._connection.execute(statement, values).inserted_primary_key or ()  # for a quarter less of the time

    def patch(self, id: Any, fields: Fields) -> None:
        """Change these fields of the row and no others, of a model those that were set; raises NotFound."""
        self._update(id, self._values(fields, only_set=True))

    def replace(self, id: Any, document: Fields) -> None:
        """Make the row this document: fields that it lacks go back to their default, or NULL; raises NotFound."""
        values = self._values(document)
        for column in self._table.columns:
            if not (column.primary_key or column.key in values or column.computed or column.onupdate):
                values[column.key] = _default_of(column, self._dialect)
        self._update(id, values)

    def delete(self, id: Any) -> None:
        """Remove the row; raises NotFound."""
        if not self._connection.execute(sa.delete(self._table).where(self._is(id))).rowcount:
            raise NotFound(self._resolver.name, id)

    def _update(self, id: Any, values: dict[str, Any]) -> None:
        if not values:
            self.get(id)
            return
        if not self._updated(id, values):
            # MySQL counts changed rows: a patch that changes nothing may have found its row all the same.
            self.get(id)

    def _updated(self, id: Any, values: dict[str, Any]) -> int:
        answer = self._kept.update(self._connection, id, values) if self._kept is not None else None
        if answer is not None:
            return answer.rowcount
        return self._connection.execute(sa.update(self._table).where(self._is(id)).values(values)).rowcount

    def _values(self, document: Fields, *, only_set: bool = False) -> dict[str, Any]:
        given = dict(document)
        if only_set and isinstance(document, BaseModel):
            given = {name: value for name, value in given.items() if name in document.model_fields_set}
        return {name: to_column(value, self._resolver.column(name), self._dialect) for name, value in given.items()}


@dataclass(frozen=True, eq=False)
class SystemTableWriter(TableReader[ScheduledFunction]):
    """`_scheduled_functions` for a writer: read it as any table; one may only delete, which cancels."""

    _cancel: Callable[[str], bool] = field(default=lambda _: False)

    def insert(self, document: Fields) -> NoReturn:
        """Refused: raises SystemTableReadOnly."""
        raise SystemTableReadOnly(SYSTEM_NAME, "insert")

    def patch(self, id: str, fields: Fields) -> NoReturn:
        """Refused: raises SystemTableReadOnly."""
        raise SystemTableReadOnly(SYSTEM_NAME, "patch")

    def replace(self, id: str, document: Fields) -> NoReturn:
        """Refused: raises SystemTableReadOnly."""
        raise SystemTableReadOnly(SYSTEM_NAME, "replace")

    def delete(self, id: str) -> None:
        """Cancel the scheduled function. One that is unknown or has ended is left as it is, without an error."""
        self._cancel(id)


class DatabaseWriter(DatabaseReader):
    """The shop's tables to read and write, and `_scheduled_functions` to read and cancel in, all in one transaction."""

    def __init__(self, connection: sa.Connection, catalog: Catalog, cancel: Callable[[str], bool]) -> None:
        super().__init__(connection, catalog)
        self._cancel = cancel

    @overload
    def table(  # type: ignore[overload-overlap]  # a literal is the more special text
        self, name: Literal["_scheduled_functions"]
    ) -> SystemTableWriter: ...
    @overload
    def table(self, name: str) -> TableWriter[Document]: ...
    def table(self, name: str) -> Any:
        """The table called `name`; raises UnknownTable."""
        resolver, convert, kept = self._catalog.open(name, self._connection)
        if name == SYSTEM_NAME:
            return SystemTableWriter(self._connection, resolver, convert, _cancel=self._cancel)
        return TableWriter(self._connection, resolver, convert, _kept=kept)


def _needs_id(key: sa.Column[Any]) -> bool:
    # A key that is another row's id is the caller's to say.
    own = isinstance(key.type, (sa.String, sa.Uuid)) and not isinstance(key.type, sa.Enum) and not key.foreign_keys
    fits = not isinstance(key.type, sa.String) or (key.type.length or 36) >= 36
    return own and fits and key.default is None and key.server_default is None


def _id_for(key: sa.Column[Any], id: str) -> Any:
    return uuid.UUID(id) if isinstance(key.type, sa.Uuid) and key.type.as_uuid else id


def _default_of(column: sa.Column[Any], dialect: str) -> Any:
    default = column.default
    if isinstance(default, ScalarElementColumnDefault | ColumnElementColumnDefault):
        return default.arg
    if isinstance(default, CallableColumnDefault):
        return default.arg(None)  # type: ignore[arg-type]  # as SQLAlchemy calls it outside of a statement
    if dialect == "postgresql" or (dialect != "sqlite" and (column.nullable or column.server_default is not None)):
        return sa.literal_column("DEFAULT")
    server = column.server_default
    if isinstance(server, sa.DefaultClause):
        return sa.literal(server.arg) if isinstance(server.arg, str) else server.arg
    return sa.null()
