"""For tables of many million rows: an index of the running rows."""

import sqlalchemy as sa
from alembic import context, op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Create the index."""
    table = context.config.attributes["table"]
    running = sa.text("state = 'inProgress'")
    op.create_index(
        _index(table),
        table.name,
        ["state", "next_at", "id"],
        schema=table.schema,
        postgresql_where=running,
        sqlite_where=running,
    )


def downgrade() -> None:
    """Drop the index."""
    table = context.config.attributes["table"]
    op.drop_index(_index(table), table.name, schema=table.schema)


def _index(table: sa.Table) -> str:
    (index,) = (each for each in table.indexes if str(each.name).endswith("_running"))
    return str(index.name)
