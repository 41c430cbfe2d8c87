"""The gate: between a message's arrival and the function's first line stands the row.

A mutation runs in one transaction whose last statement is the row's own transition: either all of it happened, or
nothing. An action is claimed first, in a commit of its own, so that it starts at most once.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol

from confect_celery import tracing
from confect_celery.errors import InvalidArguments, UnknownFunction
from confect_celery.functions import FunctionRef, Registry, codec, failure
from confect_celery.runtime.brevity import Brevity
from confect_celery.runtime.claims import Claims
from confect_celery.runtime.punctual import wait_until
from confect_celery.runtime.sharing import Sharing
from confect_celery.settings import Settings
from confect_celery.store import OwnTransaction, Pending, ScheduledFunctionId, StateKind, Store
from confect_celery.timing import Clock, DateTime, Duration

__all__ = ["Again", "Dropped", "Failed", "Gate", "Invoker", "Outcome", "Postponed", "Succeeded"]

_TRIES: Final = 10
"""A worker can wait for a database that restarts; what it holds would only come later otherwise."""

_POSTPONED_FOR: Final = Duration.seconds(5)
"""How long a mutation rests that met nothing but transient database errors."""


@dataclass(frozen=True, slots=True)
class Succeeded:
    """The function ran, and its row says so."""

    result: Any


@dataclass(frozen=True, slots=True)
class Failed:
    """The function failed, or could not be run; its row says so."""

    error: Exception


@dataclass(frozen=True, slots=True)
class Dropped:
    """The message started nothing, or what it had started is ignored; `reason` tells why."""

    reason: Literal["missing", "misnamed", "canceled", "finished", "superseded", "running", "early"]


@dataclass(frozen=True, slots=True)
class Postponed:
    """The database had no time for the mutation; its row is due again later."""

    error: Exception


@dataclass(frozen=True, slots=True)
class Again:
    """The mutation could not share the transaction of others: nothing of it happened, and it is to run by itself."""


Outcome = Succeeded | Failed | Dropped | Postponed | Again


class Invoker(Protocol):
    """Calls a function with its services."""

    def call_mutation(
        self, ref: FunctionRef[Any, Any], args: Any, transaction: OwnTransaction, row: ScheduledFunctionId
    ) -> Any:
        """Call it inside `transaction`."""

    def call_action(self, ref: FunctionRef[Any, Any], args: Any, row: ScheduledFunctionId) -> Any:
        """Call it outside any transaction."""

    def may_share(self, ref: FunctionRef[Any, Any]) -> bool:
        """Whether the function touches its transaction only in ways that others in it do not notice."""
        ...


class _NotOurs(Exception):
    """The row is not pending at the message's attempt, or ceased to be while the mutation ran."""


class _Misnamed(Exception):
    """The message bears the name of another function."""


class _Early(Exception):
    """The row's time has not come."""

    def __init__(self, until: DateTime) -> None:
        self.until = until


@dataclass(slots=True)
class _MutationRun:
    """What is known of a mutation's run, over all its tries."""

    row: Pending | None = None
    ref: FunctionRef[Any, Any] | None = None
    began: float | None = None
    span: tracing.Run | None = None

    def seconds(self) -> float | None:
        """Since it began, if it did."""
        return None if self.began is None else time.monotonic() - self.began


class Gate:
    """Runs rows. It never raises for what a function does: what came of it is the outcome."""

    def __init__(
        self,
        store: Store,
        registry: Registry,
        invoker: Invoker,
        clock: Clock,
        settings: Settings,
        brevity: Brevity | None = None,
    ) -> None:
        """`brevity` is told how long functions take."""
        self._store = store
        self._registry = registry
        self._invoker = invoker
        self._clock = clock
        self._settings = settings
        self._claims = Claims(store, clock, settings)
        self._brevity = brevity or Brevity()

    def run(
        self,
        id: str,
        attempt: int,
        name: str | None = None,
        loaded: Pending | None = None,
        claims: Claims | None = None,
    ) -> Outcome:
        """Run the row `id`, if it is pending at this `attempt` and its time has come.

        Of a row in a batch, `loaded` is what was just read, and `claims` are the batch's.

        The row is trusted, the message is not: one that bears the `name` of another function starts nothing, since its
        queue and its time limit are another's too.
        """
        if loaded is None:
            self._clock.now()  # if it has to ask the database, then not while a transaction has the connection
        outcome = Dropped("missing") if attempt < 0 else self._run(id, attempt, name, loaded, claims or self._claims)
        if isinstance(outcome, Dropped):
            self._store.events.dropped(id, name or "", attempt, outcome.reason)
        return outcome

    def _run(self, id: str, attempt: int, name: str | None, loaded: Pending | None, claims: Claims) -> Outcome:
        sharing = claims.sharing
        if sharing is not None and loaded is not None and loaded.name == name:
            may_begin = not sharing.is_open and self._is_due(loaded) and self.may_share(loaded) and sharing.has_next()
            if may_begin or sharing.is_open:
                return self._run_sharing(loaded, sharing)
        kind = self._registry.get(name).kind if name is not None and name in self._registry else None
        if name is not None and kind == "mutation":
            return self._run_mutation(id, attempt, name, loaded)  # which reads its row inside its transaction
        if name is not None and kind == "action" and loaded is None and claims is self._claims:
            started = claims.start_due(id, attempt, name)
            if started is not None:
                return self._run_action(started, claims, is_started=True)
        database = self._store.database
        row = loaded or database.reading(
            lambda connection: self._store.rows.load(connection, id, attempt), tries=_TRIES
        )
        if row is None:
            return self._why_not(id, attempt)
        if name is None and row.kind == "mutation":
            return self._run_mutation(id, attempt, row.name, None)
        return self._run_loaded(row, name, claims)

    def _run_mutation(self, id: str, attempt: int, name: str, loaded: Pending | None) -> Outcome:
        rows, database = self._store.rows, self._store.database
        run = _MutationRun()

        def work(transaction: OwnTransaction) -> Any:
            connection = transaction.connection
            if loaded is None:
                row = run.row = rows.load_locked(connection, id, attempt)
            else:
                relaxed = not self._settings.batch_waits_for_disk
                row = run.row = loaded if rows.lock(connection, id, attempt, relaxed=relaxed) else None
            if row is None:
                raise _NotOurs
            if row.name != name:
                raise _Misnamed
            if row.scheduled_time > self._clock.now():
                raise _Early(row.scheduled_time)
            ref, args = self._understand(row)
            run.ref = ref
            if run.began is None:
                run.began = self._begin(row)
                run.span = tracing.Run(row.name, row.id, row.attempt, row.options)
            called = time.monotonic()
            result = self._invoker.call_mutation(ref, args, transaction, row.id)
            self._brevity.ran(row.name, time.monotonic() - called)
            if not rows.succeed_pending(connection, row.id, row.attempt, self._clock.now(), may_commit=True):
                raise _NotOurs
            return result

        while True:
            failed: Exception | None = None
            try:
                result = database.retrying(work, tries=_TRIES)
                assert run.row is not None
                return self._told(run.row, Succeeded(result), run.seconds())
            except _Misnamed:
                return Dropped("misnamed")
            except _Early as early:  # no transaction stays open while we wait
                if not wait_until(early.until, self._clock, self._settings.horizon):
                    return Dropped("early")
                continue
            except _NotOurs:
                return self._why_not(id, attempt)
            except Exception as error:
                if run.row is None:
                    raise
                failed = error
                if database.dialect.is_transient(error):
                    return self._postpone(run.row, error)
                return self._fail_pending(run.row, error, run.ref, run.seconds())
            finally:
                if run.span is not None:
                    run.span.end(failed)

    def may_share(self, row: Pending) -> bool:
        """Whether the row, once it is due, may share a transaction: a brief mutation's, as far as is known here."""
        if row.kind != "mutation" or not self._brevity.is_brief(row.name) or row.name not in self._registry:
            return False
        return self._store.database.dialect.shares and self._invoker.may_share(self._registry.get(row.name))

    def _is_due(self, row: Pending) -> bool:
        return row.scheduled_time <= self._clock.now()

    def _run_sharing(self, row: Pending, sharing: Sharing) -> Outcome:
        """Run a mutation in its part of a transaction, and then those that may follow it there."""
        try:
            ref, args = self._understand(row)
        except (UnknownFunction, InvalidArguments):
            return Again()
        part = sharing.enter(row)
        if part is None:
            return Again()
        now, began = self._clock.now(), time.monotonic()
        span = tracing.Run(row.name, row.id, row.attempt, row.options)
        result, error = None, None
        try:
            result = self._invoker.call_mutation(ref, args, part, row.id)
        except Exception as raised:
            error = raised
        span.end(error)
        seconds = time.monotonic() - began
        if not sharing.stands(part, error):
            self._brevity.met_trouble(row.name)
            return Again()
        self._brevity.ran(row.name, seconds)
        sharing.go_on()
        if not part.is_committed:
            return Again()
        self._claimed(row, now)  # not before: what runs again is told by its own run
        if error is not None:
            return self._fail_pending(row, error, ref, seconds)
        part.committed()
        return self._told(row, Succeeded(result), seconds)

    def _understand(self, row: Pending) -> tuple[FunctionRef[Any, Any], Any]:
        ref = self._registry.get(row.name)
        return ref, codec.decode(ref, row.args)

    def _run_loaded(self, row: Pending, name: str | None, claims: Claims) -> Outcome:
        """Run the action of a row that was read a moment ago."""
        if name is not None and row.name != name:
            return Dropped("misnamed")
        if not wait_until(row.scheduled_time, self._clock, self._settings.horizon):
            return Dropped("early")
        return self._run_action(row, claims)

    def _run_action(self, row: Pending, claims: Claims, *, is_started: bool = False) -> Outcome:
        try:
            ref, args = self._understand(row)
        except (UnknownFunction, InvalidArguments) as error:
            return self._fail_running(row, error) if is_started else self._fail_pending(row, error)
        span = tracing.Run(row.name, row.id, row.attempt, row.options)
        failed: Exception | None = None
        try:
            outcome = self._call_action(row, ref, args, claims, is_started)
            failed = outcome.error if isinstance(outcome, Failed) else None
        finally:
            span.end(failed)
        return outcome

    def _call_action(
        self, row: Pending, ref: FunctionRef[Any, Any], args: Any, claims: Claims, is_started: bool
    ) -> Outcome:
        if not (is_started or claims.start(row)):
            return self._why_not(row.id, row.attempt)
        began = self._begin(row)
        try:
            result = self._invoker.call_action(ref, args, row.id)
        except Exception as error:
            return self._fail_running(row, error, ref, time.monotonic() - began)
        seconds = time.monotonic() - began
        self._brevity.ran(row.name, seconds)
        done = claims.succeed(row, lambda: self._store.events.finished(row, "success", seconds))
        return Succeeded(result) if done else self._why_not(row.id, row.attempt + 1)

    def _begin(self, row: Pending) -> float:
        self._claimed(row, self._clock.now())
        return time.monotonic()

    def _claimed(self, row: Pending, now: DateTime) -> None:
        self._store.events.claimed(row, row.due, now, row.options.get("queue"))

    def _told(self, row: Pending, outcome: Outcome, seconds: float | None) -> Outcome:
        if isinstance(outcome, Succeeded):
            self._store.events.finished(row, "success", seconds)
        elif isinstance(outcome, Failed):
            self._store.events.finished(row, "failed", seconds, type(outcome.error).__name__)
        return outcome

    def _fail_pending(
        self, row: Pending, error: Exception, ref: FunctionRef[Any, Any] | None = None, seconds: float | None = None
    ) -> Outcome:
        return self._fail(row, row.attempt, self._store.rows.fail_pending, error, ref, seconds)

    def _fail_running(
        self, row: Pending, error: Exception, ref: FunctionRef[Any, Any] | None = None, seconds: float | None = None
    ) -> Outcome:
        return self._fail(row, row.attempt + 1, self._store.rows.fail_running, error, ref, seconds)

    def _fail(
        self,
        row: Pending,
        attempt: int,
        fail: Callable[..., bool],
        error: Exception,
        ref: FunctionRef[Any, Any] | None,
        seconds: float | None,
    ) -> Outcome:
        described = failure.describe(error, ref.options.errors if ref else ())

        def work(transaction: OwnTransaction) -> bool:
            return fail(transaction.connection, row.id, attempt, self._clock.now(), described)

        if not self._store.database.retrying(work, single=True, tries=_TRIES):
            return self._why_not(row.id, attempt)
        return self._told(row, Failed(error), seconds)

    def _postpone(self, row: Pending, error: Exception) -> Outcome:
        def postpone(transaction: OwnTransaction) -> bool:
            until = self._clock.now() + _POSTPONED_FOR
            return self._store.rows.postpone(transaction.connection, row.id, row.attempt, until)

        if not self._store.database.retrying(postpone, single=True, tries=_TRIES):
            return self._why_not(row.id, row.attempt)
        self._store.events.retried(row.id, row.name, "database")
        return Postponed(error)

    def _why_not(self, id: str, attempt: int) -> Dropped:
        database = self._store.database
        found = database.reading(lambda connection: self._store.rows.get(connection, id), tries=_TRIES)
        if found is None:
            return Dropped("missing")
        if found.state.kind is StateKind.CANCELED:
            return Dropped("canceled")
        if found.state.kind.terminal:
            return Dropped("finished")
        return Dropped("superseded" if found.attempt != attempt else "running")
