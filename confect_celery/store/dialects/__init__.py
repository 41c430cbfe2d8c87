"""What differs from database to database, all of it: one module a database, behind one small interface."""

from __future__ import annotations

import sqlalchemy as sa

from confect_celery.errors import InvalidSettings
from confect_celery.store.dialects.base import Dialect
from confect_celery.store.dialects.mysql import MysqlDialect
from confect_celery.store.dialects.postgresql import PostgresqlDialect
from confect_celery.store.dialects.sqlite import SqliteDialect

__all__ = ["Dialect", "dialect_for"]

_DIALECTS: dict[str, type[Dialect]] = {
    "sqlite": SqliteDialect,
    "postgresql": PostgresqlDialect,
    "mysql": MysqlDialect,
    "mariadb": MysqlDialect,
}


def dialect_for(url: sa.URL) -> Dialect:
    """The dialect of a database URL; a database that is not supported raises InvalidSettings."""
    backend = url.get_backend_name()
    if backend not in _DIALECTS:
        supported = ", ".join(sorted(_DIALECTS))
        raise InvalidSettings({"confect_database_url": f"{backend!r} is not supported; supported are {supported}"})
    return _DIALECTS[backend](url)
