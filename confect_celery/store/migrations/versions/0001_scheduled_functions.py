"""The table `_scheduled_functions` and its one index."""

import sqlalchemy as sa
from alembic import context, op

from confect_celery.store.schema import UtcTime, exact_text, json_type

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create the table."""
    table = context.config.attributes["table"]
    op.create_table(
        table.name,
        sa.Column("id", exact_text(36), primary_key=True),
        sa.Column("name", exact_text(255), nullable=False),
        sa.Column("kind", sa.String(10), nullable=False),
        sa.Column("args", json_type(), nullable=False),
        sa.Column("scheduled_time", UtcTime, nullable=False),
        sa.Column("creation_time", UtcTime, nullable=False),
        sa.Column("completed_time", UtcTime),
        sa.Column("state", sa.String(10), nullable=False),
        sa.Column("error", json_type()),
        sa.Column("next_at", UtcTime),
        sa.Column("attempt", sa.Integer, nullable=False, server_default="0"),
        sa.Column("deliveries", sa.Integer, nullable=False, server_default="0"),
        sa.Column("losses", sa.Integer, nullable=False, server_default="0"),
        sa.Column("options", json_type(), nullable=False),
        sa.Column("parent_id", exact_text(36)),
        schema=table.schema,
    )
    live = sa.text("next_at IS NOT NULL")
    (index,) = (each for each in table.indexes if each.name.endswith("_next"))
    op.create_index(
        index.name,
        table.name,
        ["next_at", "id"],
        schema=table.schema,
        postgresql_where=live,
        sqlite_where=live,
    )


def downgrade() -> None:
    """Drop the table."""
    table = context.config.attributes["table"]
    op.drop_table(table.name, schema=table.schema)
