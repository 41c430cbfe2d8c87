"""The table `_confect_crons`."""

import sqlalchemy as sa
from alembic import context, op

from confect_celery.store.schema import UtcTime, exact_text

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Create the table."""
    table = context.config.attributes["crons"]
    op.create_table(
        table.name,
        sa.Column("name", exact_text(255), primary_key=True),
        sa.Column("spec", exact_text(255), nullable=False),
        sa.Column("next_at", UtcTime, nullable=False),
        sa.Column("last_at", UtcTime),
        sa.Column("last_id", exact_text(36)),
        sa.Column("missed", sa.Integer, nullable=False, server_default="0"),
        sa.Column("skipped", sa.Integer, nullable=False, server_default="0"),
        schema=table.schema,
    )


def downgrade() -> None:
    """Drop the table."""
    table = context.config.attributes["crons"]
    op.drop_table(table.name, schema=table.schema)
