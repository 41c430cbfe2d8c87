"""The store: the database, the table's statements and the catalog, put together."""

from __future__ import annotations

import sqlalchemy as sa

from confect_celery.store.database import Database
from confect_celery.store.query import Catalog
from confect_celery.store.schema import scheduled_functions_table
from confect_celery.store.statements import Statements

__all__ = ["Store"]


class Store:
    """`_scheduled_functions` in the database at `url`, beside the shop's own tables of `schema`.

    `namespace` is a schema on PostgreSQL and a prefix to the table's name elsewhere.
    """

    def __init__(self, url: str, *, schema: sa.MetaData | None = None, namespace: str | None = None) -> None:
        self.database = Database(url)
        on_postgresql = self.database.url.get_backend_name() == "postgresql"
        self.table = scheduled_functions_table(
            sa.MetaData(),
            schema=namespace if on_postgresql else None,
            prefix=f"{namespace}_" if namespace and not on_postgresql else "",
        )
        self.rows = Statements(self.table)
        self.catalog = Catalog(schema, self.rows.system)
        if self.database.dialect.creates_itself:
            self.database.on_first_use(self.create_table)

    def create_table(self, connection: sa.Connection) -> None:
        """Create the table and its index where they are missing."""
        self.table.metadata.create_all(connection)
