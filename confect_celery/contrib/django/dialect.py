"""The store's dialect of a database that Django connects to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import sqlalchemy as sa
from django.db import Error, InterfaceError, connections
from django.db.backends.base.base import BaseDatabaseWrapper
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import NullPool

from confect_celery.contrib.django.dialects import DRIVERS
from confect_celery.contrib.django.lending import lender
from confect_celery.errors import InvalidSettings
from confect_celery.store.dialects import Dialect, dialect_for
from confect_celery.timing import DateTime

__all__ = ["DjangoDialect"]


class DjangoDialect(Dialect):
    """What the database itself needs, over Django's connection; Django's errors count as what caused them."""

    def __init__(self, alias: str) -> None:
        """Raises InvalidSettings for an alias, a database or a driver that cannot be used."""
        self._alias = alias
        if alias not in connections:
            raise _unusable(f"there is no {alias!r} in DATABASES; there are {', '.join(connections)}")
        django = connections[alias]
        if not django.settings_dict["AUTOCOMMIT"]:
            raise _unusable(f"AUTOCOMMIT is off for {alias!r}, so nothing would commit")
        super().__init__(sa.make_url(f"{_drivername(django)}://"))
        self._inner = dialect_for(self.url)
        # Each alias has a database of its own.
        self.minds_forks = self._inner.minds_forks  # type: ignore[misc]
        self.update_returning = self._inner.update_returning  # type: ignore[misc]
        self.changes_in_ctes = self._inner.changes_in_ctes  # type: ignore[misc]

    def create_engine(self) -> sa.Engine:
        """An engine that opens nothing: it is lent the thread's connection for as long as it uses it."""
        options: dict[str, Any] = {"creator": lender(self._alias), "poolclass": NullPool}
        if self.url.get_backend_name() == "postgresql":
            options["use_native_hstore"] = False  # looking for it would set up Django's connection
        return sa.create_engine(self.url, **options)

    @property
    def lock(self) -> sa.ColumnElement[bool]:
        """As on this database without Django."""
        return self._inner.lock

    @property
    def relaxed(self) -> sa.ColumnElement[object] | None:
        """As on this database without Django."""
        return self._inner.relaxed

    def kept_all_since(self, connection: sa.Connection) -> DateTime | None:
        """As on this database without Django."""
        return self._inner.kept_all_since(connection)

    def note_lock(self, connection: sa.Connection) -> None:
        """As on this database without Django."""
        self._inner.note_lock(connection)

    def release(self, connection: sa.Connection) -> None:
        """As on this database without Django."""
        self._inner.release(connection)

    @property
    def time(self) -> sa.ColumnElement[object] | None:
        """As on this database without Django."""
        return self._inner.time

    def connections(self, connection: sa.Connection) -> tuple[int, int] | None:
        """As on this database without Django."""
        return self._inner.connections(connection)

    def is_disconnect(self, error: BaseException) -> bool:
        """Django's errors too."""
        return isinstance(error, InterfaceError) or self._inner.is_disconnect(self._cause(error))

    def is_unreachable(self, error: BaseException) -> bool:
        """As on this database without Django."""
        return self._inner.is_unreachable(error)

    def is_transient(self, error: BaseException) -> bool:
        """Django's errors too."""
        return isinstance(error, InterfaceError) or self._inner.is_transient(self._cause(error))

    def _cause(self, error: BaseException) -> BaseException:
        """An error of Django's as SQLAlchemy would have raised it."""
        cause = error.__cause__
        if not isinstance(error, Error) or not isinstance(cause, Exception):
            return error
        broken = self._is_broken(cause)
        return OperationalError("a statement of Django's", {}, cause, connection_invalidated=broken)

    def _is_broken(self, cause: Exception) -> bool:
        # psycopg says it of the connection, which Django has dropped by now: an error that no server sent.
        if self.url.get_backend_name() == "postgresql":
            return type(cause).__name__ == "OperationalError" and getattr(cause, "sqlstate", None) is None
        return bool(_sqlalchemy_dialect(self.url)().is_disconnect(cause, None, None))


def _sqlalchemy_dialect(url: sa.URL) -> Callable[[], Any]:
    cls = url.get_dialect()
    return lambda: cls(dbapi=cls.import_dbapi())


def _drivername(django: BaseDatabaseWrapper) -> str:
    module = django.Database.__name__
    found = DRIVERS.get((django.vendor, module))
    if found is None:
        usable = ", ".join(f"{vendor} with {driver}" for vendor, driver in DRIVERS)
        raise _unusable(f"{django.vendor} with {module} is not supported; supported are {usable}")
    return found


def _unusable(problem: str) -> InvalidSettings:
    return InvalidSettings({"confect_database_url": problem})
