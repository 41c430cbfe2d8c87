"""Writing: insert, patch, replace, delete."""

from __future__ import annotations

import difflib
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NoReturn, TypeVar, overload

import sqlalchemy as sa
from pydantic import BaseModel

from confect_celery.errors import NotFound, SystemTableReadOnly, UnknownField
from confect_celery.store.ids import new_id
from confect_celery.store.query.catalog import Catalog
from confect_celery.store.query.document import Document
from confect_celery.store.query.reader import DatabaseReader, TableReader
from confect_celery.store.query.system import SYSTEM_NAME
from confect_celery.store.query.values import to_column
from confect_celery.store.row import ScheduledFunction
from confect_celery.timing import DateTime

__all__ = ["DatabaseWriter", "SystemTableWriter", "TableWriter"]

Row = TypeVar("Row")
Fields = Mapping[str, Any] | BaseModel


@dataclass(frozen=True)
class TableWriter(TableReader[Row]):
    """A table to read and to write. Unknown field names raise UnknownField; what the database refuses comes through as
    SQLAlchemy's error."""

    def insert(self, document: Fields) -> Any:
        """Add a row; gives back its id, made here (UUIDv7) where the key is a text or UUID without a default."""
        values = self._values(document)
        keys = list(self._table.primary_key.columns)
        if len(keys) == 1 and keys[0].name not in values and _needs_id(keys[0]):
            id = new_id(DateTime.now())
            values[keys[0].name] = _id_for(keys[0], id)
        inserted = self._connection.execute(sa.insert(self._table).values(values)).inserted_primary_key
        made = tuple(inserted or ())
        return made[0] if len(made) == 1 else made

    def patch(self, id: Any, fields: Fields) -> None:
        """Change these fields of the row and no others; raises NotFound."""
        self._update(id, self._values(fields))

    def replace(self, id: Any, document: Fields) -> None:
        """Make the row this document: fields that it lacks go back to their default, or NULL; raises NotFound."""
        values = self._values(document)
        for column in self._table.columns:
            if not column.primary_key and column.name not in values:
                values[column.name] = _default_of(column)
        self._update(id, values)

    def delete(self, id: Any) -> None:
        """Remove the row; raises NotFound."""
        if not self._connection.execute(sa.delete(self._table).where(self._is(id))).rowcount:
            raise NotFound(self._resolver.name, id)

    def _update(self, id: Any, values: dict[str, Any]) -> None:
        if not values:
            self.get(id)
            return
        if not self._connection.execute(sa.update(self._table).where(self._is(id)).values(values)).rowcount:
            # MySQL counts changed rows: a patch that changes nothing may have found its row all the same.
            self.get(id)

    def _values(self, document: Fields) -> dict[str, Any]:
        given = dict(document) if isinstance(document, (Mapping, BaseModel)) else document
        columns = self._table.columns
        for name in given:
            if name not in columns:
                raise UnknownField(self._resolver.name, name, difflib.get_close_matches(name, list(columns.keys()), 3))
        return {name: to_column(value, columns[name], self._dialect) for name, value in given.items()}


@dataclass(frozen=True)
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
        resolver, convert = self._open(name)
        if name == SYSTEM_NAME:
            return SystemTableWriter(self._connection, resolver, convert, _cancel=self._cancel)
        return TableWriter(self._connection, resolver, convert)


def _needs_id(key: sa.Column[Any]) -> bool:
    return isinstance(key.type, (sa.String, sa.Uuid)) and key.default is None and key.server_default is None


def _id_for(key: sa.Column[Any], id: str) -> Any:
    return uuid.UUID(id) if isinstance(key.type, sa.Uuid) and key.type.as_uuid else id


def _default_of(column: sa.Column[Any]) -> Any:
    if column.default is not None and column.default.is_scalar:
        return column.default.arg  # type: ignore[attr-defined]
    if column.server_default is not None and isinstance(column.server_default, sa.DefaultClause):
        default = column.server_default.arg
        return sa.literal(default) if isinstance(default, str) else default
    return None
