"""The store's database over Django's own connections: `django://default`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import cached_property
from typing import Final, TypeVar

import sqlalchemy as sa
from asgiref.sync import sync_to_async
from django.db import Error, connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from sqlalchemy.exc import DBAPIError

from confect_celery.contrib.django.conf import alias_of, default_url
from confect_celery.contrib.django.dialect import DjangoDialect
from confect_celery.contrib.django.tables import tables_of
from confect_celery.store import Database, OwnTransaction
from confect_celery.store.database import _FIRST_BACKOFF_SECONDS, _TRIES, _Kept
from confect_celery.store.fork_gate import ForkGate

__all__ = ["DjangoDatabase", "DjangoTransaction"]

T = TypeVar("T")

_DATABASE_ERRORS: Final = (Error, DBAPIError)


class DjangoTransaction(OwnTransaction):
    """A `transaction.atomic()`, the outermost or one inside the caller's: Django tells of the commit."""

    def __init__(self, connection: sa.Connection, alias: str) -> None:
        super().__init__(connection)
        self._alias = alias

    def after_commit(self, callback: Callable[[], None]) -> bool:
        """Not possible in a Django TestCase, which never commits: there a dispatcher finds the row."""
        if any(block._from_testcase for block in connections[self._alias].atomic_blocks):
            return False
        transaction.on_commit(callback, using=self._alias, robust=True)
        return True

    @contextmanager
    def savepoint(self) -> Iterator[None]:
        """A nested `atomic()`: Django forgets the callbacks of one that rolls back."""
        with transaction.atomic(using=self._alias):
            yield


class DjangoDatabase(Database):
    """The database of an alias in DATABASES, through the connection that Django has for the calling thread.

    What runs inside the caller's `atomic()` is a part of it. Connections of SQLite that were opened here are closed
    again at once, for none may be open when a pool forks; the others stay, until Django closes them after the request
    or the task.
    """

    def __init__(self, url: str) -> None:
        self.alias = alias_of(url) or alias_of(default_url()) or ""
        self.dialect = DjangoDialect(self.alias)
        self.url = self.dialect.url
        self._engines: dict[int, sa.Engine] = {}
        self._prepare = []
        self._heard = {}
        self._kept = _Kept()
        self._use = ForkGate(self.dispose).inside if self.dialect.minds_forks else None
        # Held for good: after a fork the child must not finalize what its parent still uses.
        self._of_threads: list[BaseDatabaseWrapper] = []

    @cached_property
    def tables(self) -> sa.MetaData:  # type: ignore[override]  # the base has none
        """The tables of the project's models."""
        return tables_of(self.alias)

    @property
    def django(self) -> BaseDatabaseWrapper:
        """Django's connection of the calling thread."""
        return connections[self.alias]

    @contextmanager
    def transaction(self) -> Iterator[OwnTransaction]:
        """A `transaction.atomic()`: commits at the end if it is the outermost, and rolls back on any exception."""
        with self._borrowed() as connection:
            outermost = not self.django.in_atomic_block
            try:
                with transaction.atomic(using=self.alias), connection.begin():
                    if outermost and self.django.vendor == "sqlite":
                        _take_the_write_lock(connection)
                    yield DjangoTransaction(connection, self.alias)
            finally:
                if outermost:
                    self.dialect.release(connection)

    @contextmanager
    def snapshot(self) -> Iterator[sa.Connection]:
        """A connection to read from, in one transaction."""
        with self._borrowed() as connection:
            inside = self.django.in_atomic_block
            with nullcontext() if inside else transaction.atomic(using=self.alias), connection.begin():
                yield connection

    @contextmanager
    def autocommit(self) -> Iterator[sa.Connection]:
        """A connection on which each statement is its own transaction, unless the caller has begun one."""
        with self._borrowed() as connection:
            yield connection

    def retrying(
        self, work: Callable[[OwnTransaction], T], *, guarded: bool = True, single: bool = False, tries: int = _TRIES
    ) -> T:
        """As ever; but inside the caller's transaction once, since only the caller can begin that again."""
        if any(not block._from_testcase for block in self.django.atomic_blocks):
            with self.transaction() as joined:
                return work(joined)

        backoff = _FIRST_BACKOFF_SECONDS
        while True:
            done = False
            committed: list[bool] = []
            try:
                with self.transaction() as own:
                    own.after_commit(lambda: committed.append(True))  # noqa: B023  # of this try
                    result = work(own)
                    done = True
                return result
            except Exception as error:
                # A hook of the shop's that fails after the commit must not have all of it done again.
                if committed or (done and not guarded and self.dialect.is_disconnect(error)):
                    raise
                tries -= 1
                backoff = self._wait_to_retry(error, tries, backoff)

    @contextmanager
    def thread(self) -> Iterator[None]:
        """Closes the thread's connection after it, as Django does after a request."""
        django = self.django
        self._of_threads.append(django)
        try:
            yield
        finally:
            django.close()
            self._of_threads.remove(django)

    async def on_a_thread(self, call: Callable[[], T]) -> T:
        """On the thread that Django's async views do their synchronous work on, with its connection."""
        return await sync_to_async(call, thread_sensitive=True)()

    @contextmanager
    def _borrowed(self) -> Iterator[sa.Connection]:
        django = self.django
        with self._use() if self._use is not None else nullcontext():
            was_open = django.connection is not None
            try:
                with self.engine.connect() as connection:
                    yield connection
            except _DATABASE_ERRORS:
                if not django.in_atomic_block:
                    django.errors_occurred = True
                    django.close_if_unusable_or_obsolete()
                raise
            finally:
                if self.dialect.minds_forks and not was_open and not django.in_atomic_block:
                    django.close()


def _take_the_write_lock(connection: sa.Connection) -> None:
    # Django has begun as a reader, and one that turns writer half-way could only fail.
    connection.exec_driver_sql("ROLLBACK")
    connection.exec_driver_sql("BEGIN IMMEDIATE")
