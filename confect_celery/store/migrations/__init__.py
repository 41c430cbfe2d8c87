"""The table's history, as Alembic revisions that ship with the package.

The table has a version table of its own beside it, so it never meets the shop's own Alembic history.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Final

import sqlalchemy as sa

__all__ = ["HEAD", "current", "downgrade", "script", "upgrade"]

HEAD: Final = "0003"
"""The revision that this version of the package works with."""


def version_table(table: sa.Table) -> str:
    """The name of the version table that belongs to `table`."""
    return f"{table.name}_version"


def current(connection: sa.Connection, table: sa.Table) -> str | None:
    """The revision that the database is at; None where there is no table yet."""
    name = version_table(table)
    if not sa.inspect(connection).has_table(name, schema=table.schema):
        return None
    versions = sa.table(name, sa.column("version_num", sa.String), schema=table.schema)
    found: str | None = connection.execute(sa.select(versions.c.version_num)).scalar_one_or_none()
    return found


def upgrade(connection: sa.Connection, table: sa.Table, revision: str = "head") -> None:
    """Bring the database to `revision`, inside the caller's transaction."""
    from alembic import command

    config = _config(table)
    config.attributes["connection"] = connection
    command.upgrade(config, revision)


def downgrade(connection: sa.Connection, table: sa.Table, revision: str) -> None:
    """Take the database back to `revision`, or to none at all with "base", inside the caller's transaction."""
    from alembic import command

    config = _config(table)
    config.attributes["connection"] = connection
    command.downgrade(config, revision)


def script(url: sa.URL, table: sa.Table, since: str | None = None, until: str = "head") -> str:
    """The upgrade, from nothing or `since` a revision, as SQL for the database kind of `url`."""
    from alembic import command

    output = io.StringIO()
    config = _config(table, output)
    config.attributes["url"] = url
    command.upgrade(config, f"{since}:{until}" if since else until, sql=True)
    return output.getvalue()


def _config(table: sa.Table, output: io.StringIO | None = None):  # type: ignore[no-untyped-def]
    # Alembic takes long to import, and only a migration needs it.
    from alembic.config import Config

    config = Config(output_buffer=output)
    config.set_main_option("script_location", str(Path(__file__).parent))
    config.attributes["table"] = table
    (config.attributes["crons"],) = (other for other in table.metadata.tables.values() if other is not table)
    return config
