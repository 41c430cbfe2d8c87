"""The mutants: the package with one guard taken out of it, each of which the stateful test must notice.

First the guards of every UPDATE and DELETE of the store, then what the gate, the dispatcher, the reconciler and the
scheduler decide. Those that are marked `equivalent` change nothing that a guarantee speaks of, for the reason that
stands beside them. `python -m tests.property.check_the_checks` plays them.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa

import confect_celery
from confect_celery import Duration
from confect_celery.store import StateKind, database
from tests.property.patching import (
    STATEMENTS,
    Patch,
    answers,
    call,
    constant,
    statement,
    unchanged,
    unguarded,
    unguarded_inside,
    unheard,
)

PACKAGE: Final = Path(confect_celery.__file__).parent


@dataclass(frozen=True)
class Mutant:
    """What is removed, and how."""

    name: str
    patches: tuple[Patch, ...]
    database: str = "sqlite"
    equivalent: str | None = None
    guards: tuple[tuple[str, str], ...] = ()
    """Which guards of which statements it takes away: `("_start", "state")`."""

    @property
    def file(self) -> str:
        """Where the patch sets in: for a statement that is held ready, where `Statements` itself stands."""
        owner, _ = self.patches[0].place()
        return Path(inspect.getfile(owner)).relative_to(PACKAGE).as_posix()


LOCKED: Final = "its rows were picked, by this very guard, and locked by the statement before it in the transaction"
LATER: Final = "its message then counts as lost, and is sent again after confect_redelivery: only later"
ONE_WRITER: Final = "postgresql"
"""SQLite has one writer: there nobody cancels a mutation that has begun to write."""

GUARDED: Final = "what starts the row after it has the same guard"
UNTOUCHED: Final = "it ends rows that are locked, and that nothing has changed since"
ALONE: Final = "SQLite has one writer; elsewhere it is `_succeed_checked` that ends a mutation"

WITH_CTES: Final = "postgresql"
"""On others the two are statements of their own, which have their mutants."""


def any_(guard: str, *attributes: str, database: str = "sqlite", equivalent: str | None = None) -> Mutant:
    """The statements for rows of any `guard`."""
    name = f"{' and '.join(each.removeprefix('_') for each in attributes)}: any {guard.replace('+', ', ')}"
    patches = tuple(unguarded(each, guard) for each in attributes)
    return Mutant(name, patches, database, equivalent, tuple((each, guard) for each in attributes))


def keeps(column: str, attribute: str, equivalent: str | None = None) -> Mutant:
    """The UPDATE that leaves a column as it was."""
    name = f"{attribute.removeprefix('_')}: leaves {column} as it was"
    return Mutant(name, (unchanged(attribute, column),), equivalent=equivalent)


# -- how some of them go wrong


def _effects_first(succeed: Any, rows: Any, connection: sa.Connection, *args: Any, **options: Any) -> Any:
    begin = {"sqlite": "BEGIN IMMEDIATE"}.get(connection.dialect.name, "SELECT 1")
    connection.exec_driver_sql("COMMIT")
    connection.exec_driver_sql(begin)
    return succeed(rows, connection, *args, **options)


def _picked_again(succeed: Any, rows: Any, connection: sa.Connection, given: Any, now: Any, **options: Any) -> set[str]:
    succeed(rows, connection, given, now, **options)
    return {row.id for row in given}


def _picked_anyway(lock: Any, rows: Any, connection: sa.Connection, given: Any, **options: Any) -> set[str]:
    lock(rows, connection, given, **options)
    return {row.id for row in given}


def _entered_anyway(lock: Any, rows: Any, *args: Any, savepoint: str | None = None, **options: Any) -> bool:
    return bool(lock(rows, *args, savepoint=savepoint, **options)) or savepoint is not None


def _forgets_only(_: Any, shared: Any, part: Any) -> None:
    del shared.parts[shared.parts.index(part) :]


def _undoes_it_alone(original: Any, shared: Any, part: Any) -> None:
    after = shared.parts[shared.parts.index(part) + 1 :]
    original(shared, part)
    shared.parts += after


def _tells_at_once(stands: Any, shared: Any, part: Any, error: Any) -> bool:
    if error is None:
        part.committed()
    return bool(stands(shared, part, error))


def _takes_it_for_committed(abandon: Any, shared: Any, error: Any) -> None:
    parts = list(shared.parts)
    abandon(shared, error)
    for part in parts:
        part.is_committed = True


def _claims_afterwards() -> tuple[Patch, ...]:
    """An action's claim is only looked at, and written when it ends."""

    def start(_: Any, rows: Any, connection: Any, id: str, attempt: int, lease: Any) -> bool:
        return rows.load(connection, id, attempt) is not None

    def end(original: Any, rows: Any, connection: Any, id: str, attempt: int, now: Any, *args: Any) -> Any:
        connection.execute(rows._start, {"row": id, "at_attempt": attempt - 1, "then": now})
        return original(rows, connection, id, attempt, now, *args)

    return (
        call(f"{STATEMENTS}.start", start),
        call(f"{STATEMENTS}.succeed_running", end),
        call(f"{STATEMENTS}.fail_running", end),
    )


def _forgets_the_end(original: Any, relay: Any, row: Any) -> Any:
    relay._waiting = None
    return original(relay, row)


def _takes_it_for_due(load: Any, rows: Any, *args: Any) -> Any:
    row = load(rows, *args)
    return None if row is None else dataclasses.replace(row, scheduled_time=row.creation_time)


def _further(original: Any, rows: Any, *args: Any, now: Any, ahead: Any, **kwargs: Any) -> Any:
    return original(rows, *args, now=now, ahead=now + (ahead - now) * 100, **kwargs)


def _hardly_ever(original: Any, rows: Any, *args: Any, redelivery: Duration, **kwargs: Any) -> Any:
    return original(rows, *args, redelivery=redelivery * 10**5, **kwargs)


def _last_first(before: Any, columns: Any) -> Any:
    return before.order_by(None).order_by(columns.next_at.desc(), columns.id)


def _publishes_at_once(original: Any, transaction: Any, callback: Any) -> bool:
    if "publish" in callback.__qualname__:
        callback()
        return True
    return bool(original(transaction, callback))


def _publishes_whatever_became_of_it(original: Any, database: Any) -> Any:
    @contextmanager
    def transaction() -> Any:
        callbacks: list[Any] = []
        try:
            with original(database) as t:
                callbacks = t._callbacks
                yield t
        except Exception:
            for callback in callbacks:
                if "publish" in callback.__qualname__:
                    callback()
            raise

    return transaction()


def _keeps_what_was_undone(original: Any, transaction: Any) -> Any:
    @contextmanager
    def savepoint() -> Any:
        with transaction.connection.begin_nested():
            yield

    return savepoint()


def _session_committed(original: Any, session: Any) -> None:
    callbacks, session.info[database._CALLBACKS] = session.info[database._CALLBACKS], []
    for callback, _ in callbacks:
        callback()


def _publishes_before_the_hand_over(original: Any, dispatcher: Any) -> Any:
    rows = dispatcher._store.rows
    claim_due = rows.claim_due

    def published(*args: Any, **kwargs: Any) -> Any:
        for delivery in (taken := claim_due(*args, **kwargs)):
            with suppress(Exception):
                dispatcher._outbox._transport.publish(delivery)
        return taken

    rows.claim_due = published
    try:
        return original(dispatcher)
    finally:
        del rows.claim_due


def _swept_at_once(original: Any, reconciler: Any, transaction: Any, id: str, running: int, message: str) -> None:
    reconciler._fail(transaction, id, running - 1, RuntimeError(message))


STATEMENT_MUTANTS: Final[Sequence[Mutant]] = (
    # -- the gate's
    any_("state", "_load", equivalent=GUARDED),
    any_("attempt", "_load"),
    any_("state", "_load_locked"),
    any_("attempt", "_load_locked"),
    any_("state", "_lock"),
    any_("attempt", "_lock"),
    any_("state", "_start"),
    any_("attempt", "_start"),
    any_("state", "_start_due"),
    any_("attempt", "_start_due"),
    any_("name", "_start_due"),
    any_("scheduled_time", "_start_due"),
    any_("state", "_succeed_pending", equivalent=ALONE),
    any_("attempt", "_succeed_pending", equivalent=ALONE),
    any_("ended.state", "_succeed_checked", database=ONE_WRITER),
    any_("ended.attempt", "_succeed_checked", database=ONE_WRITER),
    any_("state", "_succeed_together", database=ONE_WRITER),
    any_("attempt", "_succeed_together", database=ONE_WRITER),
    any_("state", "_succeed_all", equivalent=UNTOUCHED),
    any_("attempt", "_succeed_all", equivalent=UNTOUCHED),
    any_("ended.state", "_all_checked", database=ONE_WRITER, equivalent=UNTOUCHED),
    any_("ended.attempt", "_all_checked", database=ONE_WRITER, equivalent=UNTOUCHED),
    any_("state", "_fail_pending"),
    any_("attempt", "_fail_pending"),
    any_("state", "_succeed_running"),
    any_("attempt", "_succeed_running"),
    any_("state", "_fail_running"),
    any_("attempt", "_fail_running"),
    any_("state", "_postpone"),
    any_("attempt", "_postpone"),
    any_("state", "_retry"),
    any_("attempt", "_retry"),
    any_(
        "ended.attempt",
        "_succeed_and_start",
        database=WITH_CTES,
        equivalent="what may start anew while it runs (acks_late) goes in no batch",
    ),
    any_("ended.state", "_succeed_and_start", database=WITH_CTES),
    any_("started.attempt", "_succeed_and_start", database=WITH_CTES),
    any_("started.state", "_succeed_and_start", database=WITH_CTES),
    keeps("attempt", "_start"),
    keeps("next_at", "_start"),
    keeps("attempt", "_start_due"),
    keeps("next_at", "_start_due"),
    keeps("attempt", "_postpone"),
    keeps("next_at", "_postpone", equivalent=LATER),
    keeps("attempt", "_retry"),
    keeps("next_at", "_retry"),
    # -- the caller's
    any_("state", "_cancel"),
    any_("state", "_reschedule"),
    keeps("attempt", "_reschedule"),
    keeps("next_at", "_reschedule"),
    keeps("scheduled_time", "_reschedule"),
    # -- the dispatcher's
    any_("state", "_pick_due", "_pick_due_since"),
    any_("next_at", "_pick_due", "_pick_due_since"),
    any_("deliveries+next_at", "_pick_due", "_pick_due_since"),
    any_("state", "_hand_over", equivalent=LOCKED),
    any_("state", "_pick_due", "_pick_due_since", "_hand_over"),
    any_("state", "_take_back"),
    any_("attempt", "_take_back"),
    any_("state", "_condemn", equivalent=LOCKED),
    keeps("next_at", "_hand_over"),
    keeps("deliveries", "_hand_over"),
    keeps("next_at", "_take_back", equivalent=LATER),
    # -- the reconciler's
    any_("state", "_lose"),
    any_("attempt", "_lose"),
    any_("state", "_requeue"),
    any_("attempt", "_requeue"),
    any_("state", "_pick_dead"),
    any_("next_at", "_any_dead", "_pick_dead"),
    any_("state", "_bury", equivalent=LOCKED),
    any_("state", "_pick_dead", "_bury"),
    any_("state", "_renew"),
    keeps("attempt", "_lose"),
    keeps("losses", "_lose"),
    keeps("attempt", "_requeue"),
    keeps("losses", "_requeue"),
    keeps("next_at", "_renew"),
    Mutant(
        "prune: any completed_time",
        (unguarded_inside("prune", "completed_time"),),
        guards=(("prune", "completed_time"),),
    ),
    Mutant(
        "prune: any state",
        (unguarded_inside("prune", "state"),),
        equivalent="only a terminal row has a completed_time, and no other is older than anything",
        guards=(("prune", "state"),),
    ),
    Mutant(
        "prune: any state, any completed_time",
        (unguarded_inside("prune", "state", "completed_time"),),
    ),
)

DECISIONS: Final[Sequence[Mutant]] = (
    # -- the gate
    Mutant(
        "gate: runs beside a duplicate (no lock)",
        (Patch("store.dialects.postgresql:PostgresqlDialect.lock", lambda _: property(lambda _: sa.literal(True))),),
        "postgresql",
    ),
    Mutant(
        "gate: does not look at the time",
        (call(f"{STATEMENTS}.load", _takes_it_for_due), call(f"{STATEMENTS}.load_locked", _takes_it_for_due)),
    ),
    Mutant("gate: the claim's answer is not heard", (unheard(f"{STATEMENTS}.start"),)),
    Mutant("gate: an action is claimed when it ends", _claims_afterwards()),
    Mutant("gate: success is not looked at", (unheard(f"{STATEMENTS}.succeed_pending"),), "postgresql"),
    Mutant("gate: a mutation's effects are committed first", (call(f"{STATEMENTS}.succeed_pending", _effects_first),)),
    Mutant(
        "gate: an error counts as success",
        (
            call(
                f"{STATEMENTS}.fail_running",
                lambda _, rows, connection, id, attempt, now, failure: rows.succeed_running(
                    connection, id, attempt, now
                ),
            ),
        ),
    ),
    Mutant(
        "gate: a transient error fails the mutation",
        (call("runtime.gate:Gate._postpone", lambda _, gate, row, error: gate._fail_pending(row, error)),),
    ),
    # -- a batch
    Mutant("batch: its last end is not recorded", (answers("runtime.relay:Relay.flush", None),)),
    Mutant("batch: a claim does not record the end that waits", (call("runtime.relay:Relay.start", _forgets_the_end),)),
    Mutant("batch: a claim's answer is not heard", (unheard("runtime.relay:Relay.start"),)),
    # -- a shared transaction
    Mutant("shared: what the lock says of a row is not heard", (call(f"{STATEMENTS}.lock", _entered_anyway),)),
    Mutant("shared: which rows were locked is not heard", (call(f"{STATEMENTS}.lock_together", _picked_anyway),)),
    Mutant(
        "shared: how the rows ended is not heard", (call(f"{STATEMENTS}.succeed_together", _picked_again),), ONE_WRITER
    ),
    Mutant("shared: its effects are committed first", (call(f"{STATEMENTS}.succeed_together", _effects_first),)),
    Mutant("shared: what raised is not undone", (call("store.shared:SharedTransaction._undo", _forgets_only),)),
    Mutant(
        "shared: those after what is undone count as done",
        (call("store.shared:SharedTransaction._undo", _undoes_it_alone),),
        ONE_WRITER,
    ),
    Mutant("shared: publishes before the commit", (call("store.shared:SharedTransaction.stands", _tells_at_once),)),
    Mutant(
        "shared: what was rolled back counts as done",
        (call("store.shared:SharedTransaction.abandon", _takes_it_for_committed),),
    ),
    Mutant(
        "shared: a child that dies commits",
        (call("runtime.sharing:Sharing.abandon", lambda _, sharing, error: sharing.settle()),),
    ),
    Mutant(
        "shared: a transient error is the mutation's own",
        (
            call(
                "runtime.sharing:Sharing.stands",
                lambda original, sharing, part, error: original(sharing, part, error and ValueError(str(error))),
            ),
        ),
    ),
    # -- the dispatcher
    Mutant(
        "dispatcher: far ahead",
        (call(f"{STATEMENTS}.claim_due", _further), call(f"{STATEMENTS}.oldest_due", _further)),
    ),
    Mutant(
        "dispatcher: the last ones first",
        (statement("_pick_due", _last_first), statement("_pick_due_since", _last_first)),
    ),
    Mutant(
        "dispatcher: a lost message is waited for as long each time",
        (
            statement(
                "_hand_over",
                lambda s, c: s.values(next_at=sa.bindparam("lost_at_0", type_=c.next_at.type)),
            ),
        ),
    ),
    Mutant("dispatcher: a lost message is hardly ever sent again", (call(f"{STATEMENTS}.claim_due", _hardly_ever),)),
    Mutant(
        "dispatcher: publishes before its hand-over is committed",
        (call("runtime.dispatcher:Dispatcher.claim", _publishes_before_the_hand_over),),
    ),
    Mutant(
        "outbox: what was not published is forgotten",
        (answers("runtime.outbox:Outbox.closing", None),),
        equivalent=LATER,
    ),
    Mutant(
        "outbox: a refused message is not given back",
        (answers("runtime.outbox:Outbox.give_back", None),),
        equivalent=LATER,
    ),
    # -- the reconciler
    Mutant("reconciler: no lease is renewed", (answers(f"{STATEMENTS}.renew", None),)),
    Mutant("reconciler: nobody is buried", (answers(f"{STATEMENTS}.any_dead", False),)),
    Mutant("reconciler: one death is enough", (constant("runtime.reconciler:_MOST_LOSSES", 1),)),
    Mutant("reconciler: no number of deaths is enough", (constant("runtime.reconciler:_MOST_LOSSES", 10**6),)),
    Mutant(
        "reconciler: a task that Celery delivers again fails at once",
        (call("runtime.reconciler:Reconciler._requeue", _swept_at_once),),
    ),
    # -- the scheduler and its transactions
    Mutant(
        "transaction: what is in doubt is done again",
        (
            call(
                "store.database:Database.retrying",
                lambda original, database, work, **kwargs: original(database, work, **{**kwargs, "guarded": True}),
            ),
        ),
        "postgresql",
    ),
    Mutant(
        "transaction: publishes before the commit",
        (
            call("store.transactions:OwnTransaction.after_commit", _publishes_at_once),
            call("store.transactions:JoinedTransaction.after_commit", _publishes_at_once),
        ),
    ),
    Mutant(
        "transaction: publishes after a rollback too",
        (call("store.database:Database.transaction", _publishes_whatever_became_of_it),),
    ),
    Mutant(
        "savepoint: publishes what was undone",
        (call("store.transactions:OwnTransaction.savepoint", _keeps_what_was_undone),),
    ),
    Mutant(
        "session: publishes at a savepoint's release",
        (call("store.transactions:_session_committed", _session_committed),),
    ),
    Mutant("session: publishes what a savepoint undid", (answers("store.transactions:_session_rolled_back", None),)),
    Mutant("scheduler: no budget", (answers("scheduler:Budget.take", None),)),
    Mutant("scheduler: may cancel itself", (answers("scheduler:Scheduler._refuse_itself", None),)),
    Mutant("scheduler: nobody is born canceled", (answers("scheduler:Scheduler._born", StateKind.PENDING),)),
    Mutant(
        "scheduler: everything is near",
        (answers("drafts:Drafts.is_near", True), answers("drafts:Drafts.is_urgent", True)),
    ),
    Mutant(
        "scheduler: no bounds, no shortest delay",
        (
            call(
                "drafts:Drafts.aim",
                lambda _, drafts, when, now: (now + when, now + when) if isinstance(when, Duration) else (when, when),
            ),
        ),
    ),
    Mutant(
        "scheduler: commits what it joins",
        (call("scheduler:Scheduler.using", lambda _, scheduler, bind: scheduler),),
        "postgresql",
    ),
)

# -- rows that are held (`holding.py` plays them)

ONLY_THERE: Final = "postgresql"
"""No other database holds rows."""


def _no_less_than_asked(original: Any, reconciler: Any, id: str, attempt: int, message: str, **_: Any) -> None:
    original(reconciler, id, attempt, message)


HOLDING: Final[Sequence[Mutant]] = (
    any_("state", "_hold", database=ONLY_THERE),
    any_("attempt", "_hold", database=ONLY_THERE),
    any_("state", "_doubt", database=ONLY_THERE, equivalent=LOCKED),
    any_("deliveries", "_doubt", database=ONLY_THERE, equivalent=LOCKED),
    any_("state", "_release", database=ONLY_THERE),
    any_(
        "attempt",
        "_release",
        database=ONLY_THERE,
        equivalent="what another holds by now is then held by nobody: it goes out to others, and begins with them",
    ),
    any_(
        "deliveries",
        "_release",
        database=ONLY_THERE,
        equivalent="at that attempt what is not held was handed over: it goes out once more, and one message starts it",
    ),
    any_("started.state", "_begin_relaxed", database=ONLY_THERE),
    any_("started.attempt", "_begin_relaxed", database=ONLY_THERE),
    any_("started.deliveries", "_begin_relaxed", database=ONLY_THERE),
    any_("started.state", "_succeed_and_begin", database=ONLY_THERE),
    any_("started.attempt", "_succeed_and_begin", database=ONLY_THERE),
    any_("started.deliveries", "_succeed_and_begin", database=ONLY_THERE),
    any_("ended.state", "_succeed_and_begin", database=ONLY_THERE),
    any_(
        "ended.attempt",
        "_succeed_and_begin",
        database=ONLY_THERE,
        equivalent="what may start anew while it runs (acks_late) goes in no batch",
    ),
    Mutant(
        "held: handed over whatever was forgotten",
        (call(f"{STATEMENTS}._sort_out_held", lambda _, rows, connection, picked, now: picked),),
        ONLY_THERE,
    ),
    Mutant("held: a doubt is forgotten", (constant("store.statements.dispatching:IN_DOUBT", -1),), ONLY_THERE),
    Mutant(
        "held: what was forgotten is not made true",
        (call("runtime.relay:Relay._again", lambda _, relay, work, ended: work),),
        ONLY_THERE,
    ),
    Mutant(
        "held: what a child was at may begin again",
        (call("runtime.reconciler:Reconciler.worker_lost", _no_less_than_asked),),
        ONLY_THERE,
    ),
    Mutant(
        "held: a begin's answer is not heard",
        (
            call(f"{STATEMENTS}.begin", lambda original, *args: original(*args) or True),
            call(f"{STATEMENTS}.succeed_and_begin", lambda original, *args: (original(*args)[0], True)),
        ),
        ONLY_THERE,
    ),
)

MUTANTS: Final[Sequence[Mutant]] = (*STATEMENT_MUTANTS, *DECISIONS, *HOLDING)
