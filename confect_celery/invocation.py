"""Calling a function: its services made, its transaction begun and ended."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.orm import Session

from confect_celery.functions import (
    ActionRunner,
    FunctionRef,
    InternalPath,
    Kind,
    MutationRunner,
    PublicPath,
    QueryRunner,
    Services,
    codec,
)
from confect_celery.scheduler import Budget, Desk, Scheduler
from confect_celery.store import DatabaseReader, DatabaseWriter, OwnTransaction, ScheduledFunctionId

__all__ = ["BUILT_IN", "Invocations", "RowId"]

RowId: Final = ScheduledFunctionId | None
"""The annotation that gives a function the id of its own row, None when it was not scheduled."""

_ALL: Final = frozenset[Kind]({"query", "mutation", "action"})

BUILT_IN: Final[Mapping[object, frozenset[Kind]]] = {
    DatabaseReader: frozenset({"query", "mutation"}),
    DatabaseWriter: frozenset({"mutation"}),
    sa.Connection: frozenset({"mutation"}),
    Session: frozenset({"mutation"}),
    Scheduler: frozenset({"mutation", "action"}),
    QueryRunner: _ALL,
    MutationRunner: frozenset({"mutation", "action"}),
    ActionRunner: frozenset({"action"}),
    RowId: _ALL,
}
"""Which kinds of function may have which service."""

_BARE: Final = frozenset({sa.Connection, Session})
_RUNNING: Final[ContextVar[Scheduler | None]] = ContextVar("confect_celery.running", default=None)
"""The scheduler of the mutation that runs in this thread or task."""

AnyRef = FunctionRef[Any, Any]
Ref = AnyRef | InternalPath | PublicPath
Scope = dict[object, Callable[[], object]]


class Invocations:
    """Runs functions of all kinds, each kind in its own way of touching the database."""

    def __init__(self, desk: Desk, services: Services) -> None:
        self._desk = desk
        self._services = services
        self._database = desk.store.database

    # -- from outside any function

    def run_query(self, function: Ref, args: object = None) -> Any:
        """Run a query in one read transaction."""
        ref, model = self._prepare(function, args, "query")
        with self._database.snapshot() as connection:
            return self._call_query(ref, model, connection)

    def run_mutation(self, function: Ref, args: object = None, *, parent: ScheduledFunctionId | None = None) -> Any:
        """Run a mutation in one transaction; transient database errors are retried."""
        ref, model = self._prepare(function, args, "mutation")
        return self._database.retrying(
            lambda transaction: self._in_transaction(ref, model, transaction, Budget(), parent=parent), guarded=False
        )

    def run_action(self, function: Ref, args: object = None, *, parent: ScheduledFunctionId | None = None) -> Any:
        """Run an action, outside any transaction."""
        ref, model = self._prepare(function, args, "action")
        return self._call_action(ref, model, parent)

    # -- for the gate

    def call_mutation(self, ref: AnyRef, args: Any, transaction: OwnTransaction, row: ScheduledFunctionId) -> Any:
        """Run a scheduled mutation inside the transaction that will end its row."""
        return self._in_transaction(ref, args, transaction, Budget(), parent=row, itself=row)

    def call_action(self, ref: AnyRef, args: Any, row: ScheduledFunctionId) -> Any:
        """Run a scheduled action."""
        return self._call_action(ref, args, row)

    def may_share(self, ref: AnyRef) -> bool:
        """Whether the mutation could share a transaction: one that gets hold of the bare connection or a session could
        end it, or set what others would find set."""
        return self._services.reached_by(ref).isdisjoint(_BARE)

    def scheduler(self, parent: ScheduledFunctionId | None = None) -> Scheduler:
        """A scheduler whose every call commits at once."""
        database = self._database
        return Scheduler(
            self._desk,
            partial(database.retrying, guarded=False),
            parent,
            _reading=database.reading,
        )

    def scheduler_in(self, transaction: OwnTransaction) -> Scheduler:
        """A scheduler that works in this transaction."""
        return Scheduler(self._desk, lambda work, **_: work(transaction))

    def here(self) -> Scheduler:
        """The scheduler of the mutation that runs in this thread, or else one whose every call commits at once."""
        running = _RUNNING.get()
        return running if running is not None and running._desk is self._desk else self.scheduler()

    @contextmanager
    def reader(self) -> Iterator[DatabaseReader]:
        """The tables, to read from in one transaction."""
        with self._database.snapshot() as connection:
            yield DatabaseReader(connection, self._desk.store.catalog)

    @contextmanager
    def writer(self) -> Iterator[DatabaseWriter]:
        """The tables, to write to in one transaction."""
        with self._database.transaction() as transaction:
            yield self._writer(transaction, self.scheduler_in(transaction))

    # -- how

    def _prepare(self, function: Ref, args: object, kind: Kind) -> tuple[AnyRef, Any]:
        ref = self._desk.registry.resolve(function)
        if ref.kind != kind:
            raise TypeError(f"{ref.name!r} is a {ref.kind}: use run_{ref.kind}, not run_{kind}.")
        return ref, codec.decode(ref, codec.encode(ref, args))

    def _call(self, ref: AnyRef, args: Any, scope: Scope, stack: ExitStack) -> Any:
        services = self._services.inject(ref, scope, stack)
        return ref.invoke(args, services)

    def _call_query(self, ref: AnyRef, args: Any, connection: sa.Connection) -> Any:
        def nested(function: Ref, given: object) -> Any:
            return self._call_query(*self._prepare(function, given, "query"), connection)

        scope: Scope = {
            DatabaseReader: lambda: DatabaseReader(connection, self._desk.store.catalog),
            QueryRunner: lambda: QueryRunner(nested),
            RowId: lambda: None,
        }
        with ExitStack() as stack:
            return self._call(ref, args, scope, stack)

    def _in_transaction(
        self,
        ref: AnyRef,
        args: Any,
        transaction: OwnTransaction,
        budget: Budget,
        *,
        parent: ScheduledFunctionId | None = None,
        itself: ScheduledFunctionId | None = None,
    ) -> Any:
        connection = transaction.connection

        def query(function: Ref, given: object) -> Any:
            return self._call_query(*self._prepare(function, given, "query"), connection)

        def mutation(function: Ref, given: object) -> Any:
            # A part of the caller's transaction that may fail alone: the caller can catch that and go on.
            prepared = self._prepare(function, given, "mutation")
            with transaction.savepoint():
                return self._in_transaction(*prepared, transaction, budget, parent=parent, itself=itself)

        scheduler = Scheduler(self._desk, lambda work, **_: work(transaction), parent, itself, budget)
        with ExitStack() as stack:
            scope: Scope = {
                DatabaseReader: lambda: DatabaseReader(connection, self._desk.store.catalog),
                DatabaseWriter: lambda: self._writer(transaction, scheduler),
                sa.Connection: lambda: connection,
                Session: lambda: stack.enter_context(_session(connection)),
                Scheduler: lambda: scheduler,
                QueryRunner: lambda: QueryRunner(query),
                MutationRunner: lambda: MutationRunner(mutation),
                RowId: lambda: itself,
            }
            token = _RUNNING.set(scheduler)
            stack.callback(_RUNNING.reset, token)
            return self._call(ref, args, scope, stack)

    def _call_action(self, ref: AnyRef, args: Any, row: ScheduledFunctionId | None) -> Any:
        scope: Scope = {
            Scheduler: lambda: self.scheduler(row),
            QueryRunner: lambda: QueryRunner(self.run_query),
            MutationRunner: lambda: MutationRunner(lambda ref, args: self.run_mutation(ref, args, parent=row)),
            ActionRunner: lambda: ActionRunner(lambda ref, args: self.run_action(ref, args, parent=row)),
            RowId: lambda: row,
        }
        with ExitStack() as stack:
            return self._call(ref, args, scope, stack)

    def _writer(self, transaction: OwnTransaction, scheduler: Scheduler) -> DatabaseWriter:
        return DatabaseWriter(transaction.connection, self._desk.store.catalog, scheduler.cancel)


@contextmanager
def _session(connection: sa.Connection) -> Iterator[Session]:
    # The transaction is the mutation's: a commit() inside must not end it, and what is pending must be written before
    # its row's own transition.
    with Session(bind=connection, join_transaction_mode="rollback_only") as session:
        yield session
        session.flush()
