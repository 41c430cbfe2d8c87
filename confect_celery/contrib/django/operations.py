"""The migration operation that lets the store's own revisions make the table."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from django.db import router
from django.db.migrations.operations.base import Operation

from confect_celery.contrib.django import conf
from confect_celery.store import Store, migrations

__all__ = ["Revise"]


class Revise(Operation):
    """Bring the table from one revision to the next, on the connection that `migrate` uses."""

    reversible = True
    reduces_to_sql = True

    def __init__(self, before: str | None, after: str) -> None:
        self.before = before
        self.after = after

    def deconstruct(self) -> tuple[str, list[Any], dict[str, Any]]:
        """How a migration file would write it."""
        return type(self).__name__, [self.before, self.after], {}

    def state_forwards(self, app_label: str, state: Any) -> None:
        """The model is not managed, so its state stands in the migration's other operations."""

    def database_forwards(self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any) -> None:
        """Upgrade."""
        if not self._concerns(app_label, schema_editor):
            return
        store = self._store(schema_editor)
        if schema_editor.collect_sql:
            text = migrations.script(store.database.url, store.table, self.before, self.after)
            schema_editor.collected_sql.append(text)
            return
        with store.database.autocommit() as connection, connection.begin():
            if store.table.schema is not None:
                connection.execute(sa.schema.CreateSchema(store.table.schema, if_not_exists=True))
            if (migrations.current(connection, store.table) or "") < self.after:
                migrations.upgrade(connection, store.table, self.after)

    def database_backwards(self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any) -> None:
        """Downgrade; the first revision goes with its table."""
        if not self._concerns(app_label, schema_editor):
            return
        store = self._store(schema_editor)
        with store.database.autocommit() as connection, connection.begin():
            migrations.downgrade(connection, store.table, self.before or "base")

    def describe(self) -> str:
        """What `migrate --plan` shows."""
        return f"Bring the table of scheduled functions to revision {self.after}"

    def _concerns(self, app_label: str, schema_editor: Any) -> bool:
        alias: str = schema_editor.connection.alias
        return router.allow_migrate(alias, app_label, model_name="scheduledfunction")

    def _store(self, schema_editor: Any) -> Store:
        return Store(f"{conf.SCHEME}://{schema_editor.connection.alias}", namespace=conf.namespace())
