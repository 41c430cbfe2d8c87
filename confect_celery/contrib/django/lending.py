"""Django's own DB-API connection, lent to SQLAlchemy for a while.

Django begins, commits and closes; SQLAlchemy only runs statements. So its part of the DB-API that ends things does
nothing here, and what Django has set up on the connection for its own reading of columns is kept out of its way.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.db import Error, connections

__all__ = ["Lent", "lender"]


class Lent:
    """A connection that is somebody else's to commit, roll back and close."""

    __slots__ = ("_cursor", "_raw")

    def __init__(self, raw: Any, cursor: Callable[[Any], Any] | None) -> None:
        self._raw = raw
        self._cursor = cursor

    def cursor(self, *args: Any, **options: Any) -> Any:
        """A cursor of the driver's own, not Django's."""
        if self._cursor is None or args or options:
            return self._raw.cursor(*args, **options)
        return self._cursor(self._raw)

    def commit(self) -> None:
        """Left to Django."""

    def rollback(self) -> None:
        """Left to Django."""

    def close(self) -> None:
        """Left to Django."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._raw, name)


def lender(alias: str) -> Callable[[], Lent]:
    """A function that gives the calling thread's connection of this alias, made if need be."""
    make_cursor = _psycopg_cursor() if connections[alias].vendor == "postgresql" else None

    def lend() -> Lent:
        django = connections[alias]
        django.validate_no_broken_transaction()
        try:
            # The cursor is for what comes with it: connecting, health checks, the guards of Django's test cases.
            django.cursor().close()
        except Error as error:
            if isinstance(error.__cause__, Exception):
                raise error.__cause__ from None  # the driver's own, which SQLAlchemy knows
            raise
        return Lent(django.connection, make_cursor)

    return lend


def _psycopg_cursor() -> Callable[[Any], Any]:
    # Django has jsonb and timestamptz loaded as its fields want them; these cursors load them as psycopg does.
    import psycopg
    from psycopg.adapt import AdaptersMap

    plain = AdaptersMap(psycopg.adapters)

    class PlainCursor(psycopg.Cursor[Any]):
        @property
        def adapters(self) -> AdaptersMap:
            return plain

    return PlainCursor
