"""Several statements in one round trip to PostgreSQL: as one text, its values written into it by psycopg.

The protocol's other way, prepared statements, takes one statement at a time.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from confect_celery.store.dialects.libpq import raise_as_sqlalchemy
from confect_celery.store.prepared import Prepared

__all__ = ["row_after"]


def row_after(
    connection: sa.Connection, first: str, statement: Prepared, parameters: Mapping[str, Any]
) -> tuple[Any, ...] | None:
    """Execute `first`, a text without values, and a statement that gives one row or none; the row.

    Raises what SQLAlchemy would raise.
    """
    import psycopg

    text, values = statement.bound(connection.dialect, parameters)
    raw: Any = connection.connection.driver_connection
    cursor: Any = psycopg.ClientCursor(raw)
    try:
        cursor.execute(f"{first}; {text}", values)
        while cursor.nextset():
            pass
        found: tuple[Any, ...] | None = cursor.fetchone()
        return found
    except psycopg.Error as error:
        raise_as_sqlalchemy(connection, text, error)
    finally:
        cursor.close()
