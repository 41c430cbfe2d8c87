"""The tables by name."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.dialects import mysql
from sqlalchemy.exc import NoSuchTableError

from confect_celery.errors import UnknownTable
from confect_celery.store.query.document import Document
from confect_celery.store.query.fields import Resolver
from confect_celery.store.query.kept import Execute, KeptStatements
from confect_celery.store.query.system import SYSTEM_NAME, SystemResolver, SystemTable
from confect_celery.store.query.values import from_column

__all__ = ["Catalog", "Opened"]


class Opened(NamedTuple):
    """A table, as it is read and written."""

    resolver: Resolver
    convert: Callable[[Any], Any]
    """Makes a row of the values of its columns."""
    kept: KeptStatements | None = None


class Catalog:
    """The shop's tables, from its MetaData or else as the database describes them, and the system table."""

    def __init__(self, metadata: sa.MetaData | None, system: SystemTable, execute: Execute | None = None) -> None:
        """`execute` executes the statements that are kept; without it SQLAlchemy does, as any other."""
        self._known = metadata
        self._execute: Execute = execute or (lambda connection, each, parameters: each.execute(connection, parameters))
        self._opened: dict[str, Opened] = {}
        self._reflected: dict[str, sa.Table] = {}
        self.system = system

    def open(self, name: str, connection: sa.Connection) -> Opened:
        """The table called `name`, `schema.name` for one in a schema; raises UnknownTable with names like it.

        `_scheduled_functions` is the system table wherever it is kept, and it goes by no other name.
        """
        opened = self._opened.get(name) if isinstance(name, str) else None
        if opened is not None and self._is_as_it_was(name, opened):
            return opened
        if name == SYSTEM_NAME:
            return Opened(SystemResolver(self.system.table), self.system.to_scheduled_function)
        table = self._find(name, connection)
        if table is None:
            raise self._unknown(name, connection)
        opened = Opened(Resolver(name, table), _documents(name, table), KeptStatements(table, self._execute))
        self._opened[name] = opened
        return opened

    def _is_as_it_was(self, name: str, opened: Opened) -> bool:
        # A table may be defined anew, and a mapped class be given more columns.
        return self._told(name) is opened.resolver.table and opened.kept is not None and opened.kept.fit

    def _told(self, name: str) -> sa.Table | None:
        if self._known is None:
            return self._reflected.get(name)
        tables: Mapping[str, sa.Table] = self._known.tables
        told = tables.get(name)
        if told is None:
            told = tables.get(f"{self._known.schema}.{name}")
        return self._reflected.get(name) if told is None else told

    def _unknown(self, name: str, connection: sa.Connection) -> UnknownTable:
        known = {*(self._known.tables if self._known is not None else ()), SYSTEM_NAME}
        known |= set(sa.inspect(connection).get_table_names())
        known = {other for other in known if not self._is_system(other)}
        like_system = isinstance(name, str) and self._is_system(name)
        close = [SYSTEM_NAME] if like_system else difflib.get_close_matches(str(name), known, 3)
        return UnknownTable(str(name), close)

    def _find(self, name: str, connection: sa.Connection) -> sa.Table | None:
        # Under its physical name the system table could be written by hand.
        if not isinstance(name, str) or self._is_system(name):
            return None
        told = self._told(name)
        if told is None:
            schema, _, plain = name.rpartition(".")
            if not _exists(plain, schema or None, connection):
                return None
            try:
                # In a MetaData of its own: another thread must not find the table half described.
                table = sa.Table(plain, sa.MetaData(), schema=schema or None, autoload_with=connection)
            except NoSuchTableError:
                return None
            _mend(table, connection)
            told = self._reflected.setdefault(name, table)
        return told

    def _is_system(self, name: str) -> bool:
        # Some databases ignore the case of a table's name.
        plain = name.rpartition(".")[2].lower()
        return name != SYSTEM_NAME and plain in (SYSTEM_NAME, self.system.table.name.lower())


def _documents(name: str, table: sa.Table) -> Callable[[Iterable[Any]], Document]:
    columns = table.columns.keys()

    def document(row: Iterable[Any]) -> Document:
        return Document(name, {key: from_column(value) for key, value in zip(columns, row, strict=False)})

    return document


def _exists(name: str, schema: str | None, connection: sa.Connection) -> bool:
    known = sa.inspect(connection)
    if not name or "\0" in name or (schema is not None and schema not in known.get_schema_names()):
        return False
    if connection.dialect.name in ("mysql", "mariadb"):  # there it is an error to ask for a name that could be none
        return name in (*known.get_table_names(schema), *known.get_view_names(schema))
    return known.has_table(name, schema=schema)


def _mend(table: sa.Table, connection: sa.Connection) -> None:
    """MariaDB keeps JSON as text with a check, and MySQL booleans as tiny integers: let them be what they were."""
    if connection.dialect.name not in ("mysql", "mariadb"):
        return
    for column in table.columns:
        if isinstance(column.type, mysql.TINYINT) and column.type.display_width == 1:
            column.type = sa.Boolean()
    if getattr(connection.dialect, "is_mariadb", False):
        checks = sa.text(
            "SELECT constraint_name FROM information_schema.check_constraints WHERE table_name = :table"
            " AND constraint_schema = coalesce(:schema, database()) AND check_clause LIKE 'json_valid(%'"
        )
        for name in connection.scalars(checks, {"table": table.name, "schema": table.schema}):
            if name in table.columns:
                table.columns[name].type = sa.JSON()
