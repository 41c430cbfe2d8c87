"""For tables of many million rows: an index of the running rows, and a vacuum that comes in time."""

import sqlalchemy as sa
from alembic import context, op

revision = "0003"
down_revision = "0002"

# By default a tenth of the rows must have changed before they are counted anew, and a fifth before any room is freed:
# at ten million rows 400 MB, and then most of a minute's work. docs/performance.md has the figures.
VACUUM = {"autovacuum_vacuum_scale_factor": "0.02", "autovacuum_analyze_scale_factor": "0.02"}


def upgrade() -> None:
    """Create the index, and tell PostgreSQL when to vacuum."""
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
    _alter(table, "SET", ", ".join(f"{name} = {value}" for name, value in VACUUM.items()))


def downgrade() -> None:
    """Drop the index, and let PostgreSQL vacuum when it would."""
    table = context.config.attributes["table"]
    _alter(table, "RESET", ", ".join(VACUUM))
    op.drop_index(_index(table), table.name, schema=table.schema)


def _index(table: sa.Table) -> str:
    (index,) = (each for each in table.indexes if str(each.name).endswith("_running"))
    return str(index.name)


def _alter(table: sa.Table, what: str, settings: str) -> None:
    dialect = op.get_context().dialect
    if dialect.name == "postgresql":
        op.execute(f"ALTER TABLE {dialect.identifier_preparer.format_table(table)} {what} ({settings})")
