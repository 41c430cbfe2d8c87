"""Several statements in one round trip to PostgreSQL: as one text, its values written into it by psycopg.

The protocol's other way, prepared statements, takes one statement at a time.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

__all__ = ["SimpleQuery"]


class SimpleQuery:
    """A Core statement that gives one row or none, to be executed after others that give none."""

    def __init__(self, statement: sa.ClauseElement, dialect: sa.Dialect) -> None:
        compiled: Any = statement.compile(dialect=dialect)
        self._text = str(compiled)
        self._constants = dict(compiled.params)
        self._processors = {
            name: process
            for name, parameter in compiled.binds.items()
            if (process := parameter.type.dialect_impl(dialect).bind_processor(dialect)) is not None
        }

    def after(self, connection: sa.Connection, first: str, parameters: Mapping[str, Any]) -> tuple[Any, ...] | None:
        """Execute `first`, a text without values, and the statement; raises what SQLAlchemy would raise."""
        import psycopg

        values = {**self._constants, **parameters}
        for name, process in self._processors.items():
            values[name] = process(values[name])
        raw: Any = connection.connection.driver_connection
        cursor = psycopg.ClientCursor(raw)
        try:
            cursor.execute(f"{first}; {self._text}", values)
            while cursor.nextset():
                pass
            found: tuple[Any, ...] | None = cursor.fetchone()
            return found
        except psycopg.Error as error:
            broken = connection.dialect.is_disconnect(cast("Any", error), raw, None)
            if broken:
                connection.invalidate(error)
            raised = DBAPIError.instance(
                self._text, None, error, psycopg.Error, connection_invalidated=broken, dialect=connection.dialect
            )
            raise raised from error
        finally:
            cursor.close()
