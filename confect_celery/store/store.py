"""The store: the database, the table's statements and the catalog, put together."""

from __future__ import annotations

import sqlalchemy as sa

from confect_celery.errors import SchemaOutOfDate
from confect_celery.metrics import Events
from confect_celery.store import migrations
from confect_celery.store.crons import CronStatements
from confect_celery.store.database import database_at
from confect_celery.store.query import Catalog
from confect_celery.store.schema import crons_table, scheduled_functions_table
from confect_celery.store.statements import Statements

__all__ = ["Store"]


class Store:
    """`_scheduled_functions` in the database at `url`, beside the shop's own tables of `schema`.

    `namespace` is a schema on PostgreSQL and a prefix to the table's name elsewhere. An SQLite file creates its table
    itself on first use; elsewhere `migrate` does. What happens to rows is told to `events`.
    """

    def __init__(
        self,
        url: str,
        *,
        schema: sa.MetaData | None = None,
        namespace: str | None = None,
        events: Events | None = None,
    ) -> None:
        self.events = events if events is not None else Events()
        self.database = database_at(url)
        self.database.events = self.events
        on_postgresql = self.database.url.get_backend_name() == "postgresql"
        metadata, within = sa.MetaData(), namespace if on_postgresql else None
        prefix = f"{namespace}_" if namespace and not on_postgresql else ""
        self.table = scheduled_functions_table(metadata, schema=within, prefix=prefix)
        self.rows = Statements(self.table, self.database.dialect)
        self.crons = CronStatements(crons_table(metadata, schema=within, prefix=prefix))
        tables = self.database.tables if schema is None else schema
        self.catalog = Catalog(tables, self.rows.system, self.database.execute)
        if self.database.dialect.creates_itself:
            self.database.on_first_use(self._upgrade)

    def migrate(self) -> None:
        """Bring the table to the revision that this version needs; nothing happens where it is there already."""
        with self.database.transaction() as transaction:
            if self.table.schema is not None:
                transaction.connection.execute(sa.schema.CreateSchema(self.table.schema, if_not_exists=True))
            self._upgrade(transaction.connection)

    def migration_script(self, since: str | None = None) -> str:
        """The SQL of `migrate` on an empty database, or on one at the revision `since`, to be read and run by a DBA.

        Alembic's CommandError tells of an unknown revision.
        """
        return migrations.script(self.database.url, self.table, since)

    def check_schema(self) -> None:
        """Raise SchemaOutOfDate unless the table is at the revision that this version needs."""
        found = self.database.reading(lambda connection: migrations.current(connection, self.table))
        if found != migrations.HEAD:
            raise SchemaOutOfDate(found, migrations.HEAD)

    def _upgrade(self, connection: sa.Connection) -> None:
        if migrations.current(connection, self.table) != migrations.HEAD:
            migrations.upgrade(connection, self.table)
