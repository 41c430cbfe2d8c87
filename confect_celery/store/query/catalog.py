"""The tables by name."""

from __future__ import annotations

import difflib

import sqlalchemy as sa
from sqlalchemy.exc import NoSuchTableError

from confect_celery.errors import UnknownTable
from confect_celery.store.query.filters import Resolver
from confect_celery.store.query.system import SYSTEM_NAME, SystemResolver, SystemTable

__all__ = ["Catalog"]


class Catalog:
    """The shop's tables, from its MetaData or else as the database describes them, and the system table."""

    def __init__(self, metadata: sa.MetaData | None, system: SystemTable) -> None:
        self._known = metadata
        self._reflected = sa.MetaData()
        self.system = system

    def resolver(self, name: str, connection: sa.Connection) -> Resolver:
        """The table called `name`, `schema.name` for one in a schema; raises UnknownTable with names like it."""
        if name == SYSTEM_NAME:
            return SystemResolver(self.system.table)
        for metadata in (self._known, self._reflected):
            if metadata is not None and name in metadata.tables:
                return Resolver(name, metadata.tables[name])
        schema, _, plain = name.rpartition(".")
        try:
            table = sa.Table(plain, self._reflected, schema=schema or None, autoload_with=connection)
        except NoSuchTableError:
            known = {
                *(self._known.tables if self._known is not None else ()),
                *sa.inspect(connection).get_table_names(),
            }
            raise UnknownTable(name, difflib.get_close_matches(name, known, 3)) from None
        return Resolver(name, table)
