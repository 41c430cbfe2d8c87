"""Alembic's entry: on the connection that `upgrade` was given, or to SQL text."""

from alembic import context

from confect_celery.store.migrations import version_table

table = context.config.attributes["table"]
options = {
    "target_metadata": table.metadata,
    "version_table": version_table(table),
    "version_table_schema": table.schema,
}
if context.is_offline_mode():
    url = context.config.attributes["url"]
    context.configure(dialect_name=url.get_backend_name(), literal_binds=True, **options)
else:
    context.configure(connection=context.config.attributes["connection"], **options)
with context.begin_transaction():
    context.run_migrations()
