"""Connections and what is done on them: one engine a process, and work that is done again after transient errors."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Final, Protocol, TypeVar

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from confect_celery.metrics import Events
from confect_celery.store.dialects import Dialect, dialect_for
from confect_celery.store.fork_gate import ForkGate
from confect_celery.store.prepared import Answer, Prepared
from confect_celery.store.spare import Spare
from confect_celery.store.transactions import JoinedTransaction, OwnTransaction
from confect_celery.timing import jitter

__all__ = ["Database", "database_at", "register_database"]

T = TypeVar("T")

logger = logging.getLogger(__name__)

_TRIES: Final = 5
_FIRST_BACKOFF_SECONDS: Final = 0.1
_LONGEST_BACKOFF_SECONDS: Final = 5.0


class Listener(Protocol):
    """Hears what is executed on a connection."""

    def executes(self, statement: str) -> str | None:
        """This text is about to be executed; gives back the name of the savepoint that is to be begun before it."""

    def failed(self, error: BaseException) -> None:
        """A statement raised this."""


class _Kept(threading.local):
    """What a thread keeps, and the process it is in: a fork copies the one without the right to the other."""

    by: int | None = None
    connection: sa.Connection | None = None


class Database:
    """The database at `url`. Engines are made lazily, one a process: an inherited connection is never used after a
    fork, nor closed there, since closing it would disturb the parent's."""

    tables: sa.MetaData | None = None
    """The shop's tables, where a framework that lends its connections knows them; else the database is asked."""

    events = Events()
    """Who is told of transient errors."""

    _spare: Spare | None = None

    troubles = 0
    """How often this process has met a transient error, or lost a connection, so far."""

    def __init__(self, url: str) -> None:
        self.url = sa.make_url(url)
        self.dialect: Dialect = dialect_for(self.url)
        self._engines: dict[int, sa.Engine] = {}
        gate = ForkGate(self.dispose) if self.dialect.minds_forks else None
        self._use: Callable[[], AbstractContextManager[None]] | None = gate.inside if gate else None
        self._prepare: list[Callable[[sa.Connection], None]] = []
        self._heard: dict[int, Listener] = {}
        self._kept = _Kept()
        if self.dialect.spares:
            self._spare = Spare()

    def on_first_use(self, prepare: Callable[[sa.Connection], None]) -> None:
        """Run `prepare` in a transaction of its own before anything else, once a process."""
        self._prepare.append(prepare)

    @property
    def engine(self) -> sa.Engine:
        """This process's engine."""
        pid = os.getpid()
        engine = self._engines.get(pid)
        if engine is None:
            engine = self.dialect.create_engine()
            event.listen(engine, "handle_error", self._on_error)
            event.listen(engine, "invalidate", self._on_lost)
            event.listen(engine, "before_cursor_execute", self._on_statement)
            if self._prepare:
                with engine.connect() as connection, self.dialect.begin_write(connection):
                    for prepare in self._prepare:
                        prepare(connection)
            # Two threads may both come here: the first to arrive wins, the other's engine had no connection left open.
            engine = self._engines.setdefault(pid, engine)
        return engine

    @contextmanager
    def transaction(self) -> Iterator[OwnTransaction]:
        """A transaction that writes: commits at the end, rolls back on any exception."""
        with _Lent(self) as connection:
            transaction = OwnTransaction(connection)
            try:
                with self.dialect.begin_write(connection):
                    yield transaction
            finally:
                self.dialect.release(connection)
        transaction.committed()

    def _give_back(self, connection: sa.Connection) -> None:
        if self._spare is None:
            connection.close()
        else:
            self._spare.give_back(self._engines.get(os.getpid()), connection, self.troubles)

    def statement(self) -> AbstractContextManager[OwnTransaction]:
        """A transaction of one statement, which commits with it: one round trip instead of three."""
        return _Statement(self.autocommit())

    @contextmanager
    def listening_to(self, connection: sa.Connection, listener: Listener) -> Iterator[None]:
        """For the length of the block, `listener` is told of each statement on this connection, and of its error."""
        self._heard[id(connection)] = listener
        try:
            yield
        finally:
            del self._heard[id(connection)]

    def _on_lost(self, *_: Any) -> None:
        self.troubles += 1

    def _on_error(self, context: sa.ExceptionContext) -> None:
        listener = self._heard.get(id(context.connection))
        if listener is not None:
            listener.failed(context.sqlalchemy_exception or context.original_exception)

    def _on_statement(self, connection: sa.Connection, _cursor: Any, statement: str, *_: Any) -> None:
        listener = self._heard.get(id(connection))
        savepoint = listener.executes(statement) if listener is not None else None
        if savepoint is not None:
            self.dialect.begin_savepoint(connection, savepoint)

    def execute(self, connection: sa.Connection, statement: Prepared, parameters: Mapping[str, Any]) -> Answer:
        """Execute a statement of the shop's own, in the quickest way in which everybody hears of it who listens."""
        if not (self._hears_alone(connection) and self.dialect.is_direct(connection)):
            return statement.execute(connection, parameters)
        listener = self._heard.get(id(connection))
        savepoint = listener.executes(statement.text(connection.dialect)) if listener is not None else None
        try:
            return self.dialect.execute_direct(connection, savepoint, statement, parameters)
        except SQLAlchemyError as error:
            if listener is not None:
                listener.failed(error)
            raise

    def _hears_alone(self, connection: sa.Connection) -> bool:
        """Whether it is a connection of ours, in a transaction, and nobody else listens to it or logs what it does."""
        engine = connection.engine
        if engine is not self._engines.get(os.getpid()) or not connection.in_transaction():
            return False
        heard: Any = connection.dispatch  # its own and the engine's
        others = heard.before_execute, heard.after_execute, heard.after_cursor_execute
        alone = len(heard.before_cursor_execute) == self.dialect.listeners + 1 and not any(map(len, others))
        return alone and not engine.logger.isEnabledFor(logging.INFO)

    @contextmanager
    def snapshot(self) -> Iterator[sa.Connection]:
        """A connection to read from, in one transaction."""
        with _Lent(self) as connection, self.dialect.begin(connection):
            yield connection

    def autocommit(self) -> AbstractContextManager[sa.Connection]:
        """A connection on which each statement is its own transaction: one round trip instead of three."""
        return _Lent(self, autocommits=True)

    @contextmanager
    def keeping_a_connection(self) -> Iterator[None]:
        """For the length of the block, `autocommit` gives this thread the same connection again and again."""
        if self.dialect.minds_forks or self._kept.by is not None:
            yield
            return
        self._kept.by = os.getpid()
        try:
            yield
        finally:
            connection, self._kept.connection, self._kept.by = self._kept.connection, None, None
            if connection is not None:
                self._give_back(connection)

    def join(self, bind: Any) -> JoinedTransaction:
        """Join the open transaction of a SQLAlchemy Connection or Session, or of a driver's connection."""
        if isinstance(bind, Session):
            return JoinedTransaction(bind.connection(), bind)
        connection = bind if isinstance(bind, sa.Connection) else self.dialect.adopt(bind, self.engine)
        if connection is None:
            raise TypeError(
                "scheduler.using() takes a SQLAlchemy Connection or Session, or on PostgreSQL a psycopg connection, "
                f"not {type(bind).__name__}."
            )
        return JoinedTransaction(connection)

    def retrying(
        self, work: Callable[[OwnTransaction], T], *, guarded: bool = True, single: bool = False, tries: int = _TRIES
    ) -> T:
        """Do `work` in a transaction; on a transient database error do it again, `tries` times in all, waiting longer
        each time: 5 tries outlast 1.5 s, 10 some 20 s.

        `work` must leave nothing behind but what the transaction holds. Where a connection breaks during the commit
        nobody knows whether it happened: then only `guarded` work, whose statements change nothing the second time, is
        done again. `single` work is guarded, and executes one statement at most that writes.
        """
        backoff = _FIRST_BACKOFF_SECONDS
        while True:
            done = False
            try:
                with self.statement() if single else self.transaction() as transaction:
                    result = work(transaction)
                    done = True
                return result
            except Exception as error:
                if done and not guarded and self.dialect.is_disconnect(error):
                    raise
                tries -= 1
                backoff = self._wait_to_retry(error, tries, backoff)

    def reading(self, read: Callable[[sa.Connection], T], *, tries: int = _TRIES) -> T:
        """Do `read` with each statement its own transaction; on a transient error again, as `retrying` does."""
        backoff = _FIRST_BACKOFF_SECONDS
        while True:
            try:
                with self.autocommit() as connection:
                    return read(connection)
            except Exception as error:
                tries -= 1
                backoff = self._wait_to_retry(error, tries, backoff)

    def _wait_to_retry(self, error: Exception, left: int, backoff: float) -> float:
        """Raises the error where the work shall not be done again; gives back how long to wait the next time."""
        if left <= 0 or not self.dialect.is_transient(error):
            raise error
        logger.warning("Transient database error, trying again (%d left): %s", left, error)
        self.troubles += 1
        self.events.database_retry(error)
        time.sleep(backoff * jitter(0.5, 1.5))
        return min(backoff * 2, _LONGEST_BACKOFF_SECONDS)

    def thread(self) -> AbstractContextManager[object]:
        """The life of a thread of ours. A framework that lends connections to threads closes this one's after it."""
        return nullcontext()

    async def on_a_thread(self, call: Callable[[], T]) -> T:
        """Do `call`, which uses the database, on a thread that may, for an async caller."""
        return await asyncio.to_thread(call)

    def dispose(self) -> None:
        """Close this process's connections."""
        engine = self._engines.pop(os.getpid(), None)
        if engine is not None:
            if self._spare is not None:
                self._spare.close(engine)
            engine.dispose()


class _Lent:
    """A connection for the length of a block. No generator: a caller's every statement goes through one."""

    __slots__ = ("_autocommits", "_connection", "_database", "_is_kept", "_use")

    def __init__(self, database: Database, *, autocommits: bool = False) -> None:
        self._database = database
        self._autocommits = autocommits
        self._connection: sa.Connection | None = None
        self._is_kept = False

    def __enter__(self) -> sa.Connection:
        database = self._database
        self._use = database._use() if database._use is not None else None
        if self._use is not None:
            self._use.__enter__()
        try:
            pid = os.getpid()
            if self._autocommits and database._kept.by == pid:
                self._is_kept, self._connection = True, database._kept.connection
            if self._connection is None:
                engine, spare = database._engines.get(pid) or database.engine, database._spare
                self._connection = engine.connect() if spare is None else spare.take(engine, database.troubles)
                if self._autocommits:
                    self._connection = database.dialect.autocommit(self._connection)
                if self._is_kept:
                    database._kept.connection = self._connection
            return self._connection
        except BaseException:
            self.__exit__(*sys.exc_info())
            raise

    def __exit__(self, *raised: Any) -> None:
        connection = self._connection
        try:
            if raised[1] is not None:
                if self._is_kept:
                    self._database._kept.connection = None
                if connection is not None:  # it may be broken; the pool will see
                    connection.close()
            elif connection is not None and not self._is_kept:
                self._database._give_back(connection)
        finally:
            if self._use is not None:
                self._use.__exit__(*raised)


class _Statement:
    """A transaction of one statement, for the length of a block; no generator either."""

    __slots__ = ("_lent", "_transaction")

    def __init__(self, lent: AbstractContextManager[sa.Connection]) -> None:
        self._lent = lent

    def __enter__(self) -> OwnTransaction:
        transaction = self._transaction = OwnTransaction(self._lent.__enter__())
        return transaction

    def __exit__(self, *raised: Any) -> None:
        self._lent.__exit__(*raised)
        if raised[1] is None:
            self._transaction.committed()


_SCHEMES: dict[str, Callable[[str], Database]] = {}


def register_database(scheme: str, make: Callable[[str], Database]) -> None:
    """Have `make(url)` open the URLs of this scheme: for a framework that lends its own connections."""
    _SCHEMES[scheme] = make


def database_at(url: str) -> Database:
    """The database of a URL, by its scheme."""
    return _SCHEMES.get(url.partition("://")[0], Database)(url)
