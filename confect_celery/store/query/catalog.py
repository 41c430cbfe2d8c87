"""The tables by name."""

from __future__ import annotations

import difflib

import sqlalchemy as sa
from sqlalchemy.dialects import mysql
from sqlalchemy.exc import NoSuchTableError

from confect_celery.errors import UnknownTable
from confect_celery.store.query.fields import Resolver
from confect_celery.store.query.kept import Execute, KeptStatements
from confect_celery.store.query.system import SYSTEM_NAME, SystemResolver, SystemTable

__all__ = ["Catalog"]


class Catalog:
    """The shop's tables, from its MetaData or else as the database describes them, and the system table."""

    def __init__(self, metadata: sa.MetaData | None, system: SystemTable, execute: Execute | None = None) -> None:
        """`execute` executes the statements that are kept; without it SQLAlchemy does, as any other."""
        self._known = metadata
        self._execute: Execute = execute or (lambda connection, each, parameters: each.execute(connection, parameters))
        self._kept: dict[sa.Table, KeptStatements] = {}
        self._reflected: dict[str, sa.Table] = {}
        self.system = system

    def resolver(self, name: str, connection: sa.Connection) -> Resolver:
        """The table called `name`, `schema.name` for one in a schema; raises UnknownTable with names like it.

        `_scheduled_functions` is the system table wherever it is kept, and it goes by no other name.
        """
        if name == SYSTEM_NAME:
            return SystemResolver(self.system.table)
        table = self._find(name, connection)
        if table is None:
            known = {*(self._known.tables if self._known is not None else ()), SYSTEM_NAME}
            known |= set(sa.inspect(connection).get_table_names())
            known = {other for other in known if not self._is_system(other)}
            like_system = isinstance(name, str) and self._is_system(name)
            close = [SYSTEM_NAME] if like_system else difflib.get_close_matches(str(name), known, 3)
            raise UnknownTable(str(name), close)
        return Resolver(name, table)

    def kept(self, table: sa.Table) -> KeptStatements:
        """The statements that are kept of a table of the shop's."""
        kept = self._kept.get(table)
        if kept is None or not kept.fit:
            kept = self._kept[table] = KeptStatements(table, self._execute)
        return kept

    def _find(self, name: str, connection: sa.Connection) -> sa.Table | None:
        # Under its physical name the system table could be written by hand.
        if not isinstance(name, str) or self._is_system(name):
            return None
        if self._known is not None:
            for known in (name, f"{self._known.schema}.{name}"):
                if known in self._known.tables:
                    return self._known.tables[known]
        if name not in self._reflected:
            schema, _, plain = name.rpartition(".")
            if not _exists(plain, schema or None, connection):
                return None
            try:
                # In a MetaData of its own: another thread must not find the table half described.
                table = sa.Table(plain, sa.MetaData(), schema=schema or None, autoload_with=connection)
            except NoSuchTableError:
                return None
            _mend(table, connection)
            self._reflected.setdefault(name, table)
        return self._reflected[name]

    def _is_system(self, name: str) -> bool:
        # Some databases ignore the case of a table's name.
        plain = name.rpartition(".")[2].lower()
        return name != SYSTEM_NAME and plain in (SYSTEM_NAME, self.system.table.name.lower())


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
