"""The real package on a real database, and the seams at which it may die: every commit and every publish."""

from __future__ import annotations

import datetime as dt
import json
import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Final
from unittest import mock

import sqlalchemy as sa
from celery import Celery
from pydantic import BaseModel
from sqlalchemy import event
from sqlalchemy.exc import DBAPIError, OperationalError

from confect_celery import Confect, DateTime, Duration, SettableClock
from confect_celery.runtime import Dispatcher, Outbox, Reconciler
from confect_celery.runtime.announce import Silent
from confect_celery.store import Delivery, Part, Pending, SharedTransaction
from tests.property.model import LIVE, Job, Model, Row, Violation, violated
from tests.property.plans import Fault, Plan

START: Final = DateTime.parse("2030-01-01T00:00:00Z")
EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
RETENTION_SECONDS: Final = 300
BATCH: Final = 3
LONG: Final = 11
"""How many transactions in a row a long trouble takes: the gate gives up after ten."""
LATE: Final = "late"
"""A plain task whose message Celery would deliver again after its worker was lost."""


class Died(BaseException):
    """The host is gone: nothing on it catches this."""


class ChildDied(BaseException):
    """Only the process that ran the function is gone."""


class Key(BaseModel):
    key: int


@dataclass
class Message:
    """A message in the broker."""

    id: str
    key: int
    name: str
    kind: str
    attempt: int
    due: int


@dataclass
class Frame:
    """A function that runs, and the worker that runs it."""

    key: int
    id: str
    attempt: int
    at_eta: bool
    """Whether the worker held the message until its eta, as Celery does."""
    stalled: bool = False
    began: bool = False


@dataclass
class Broker:
    """Takes messages; the adversary takes them out in whatever order."""

    world: World
    messages: list[Message] = field(default_factory=list)

    def publish(self, delivery: Delivery) -> None:
        world = self.world
        fault = world.strikes("publish")
        if fault and fault.when == "before":
            raise Died if fault.how == "die" else ConnectionError("the broker is away")
        due = delivery.due.epoch_micros
        if due > world.now + world.horizon:
            violated(8, f"{delivery} reached the broker {(due - world.now) / 1e6} s before it is due")
        key = delivery.args["key"]
        row = world.rows().get(key)  # on a connection of its own: only what is committed
        if row is None:
            violated(1, f"{delivery} reached the broker, but no transaction that scheduled it has committed")
        if row.state == "pending" and row.attempt < delivery.attempt:
            violated(1, f"{delivery} reached the broker before the attempt that it is for was committed: {row}")
        self.messages.append(Message(delivery.id, key, delivery.name, delivery.kind, delivery.attempt, due))
        if fault:
            raise Died if fault.how == "die" else ConnectionError("the broker took it, but did not say so")


class Monitor(Silent):
    """Hears of ends that only the reconciler knows of."""

    def __init__(self, world: World) -> None:
        self._world = world

    def failed(self, id: str, error: Exception) -> None:
        if not any(row.id == id and row.state == "failed" for row in self._world.rows().values()):
            violated(7, f"monitors are told that {id} failed ({error}); it did not")


class World:
    """One database and one shop; `reset` begins another example on it."""

    def __init__(self, url: str) -> None:
        self.examples = 0
        self.steps = 0
        self.happened: Counter[str] = Counter()
        """What happened over all examples: a test that never gets there proves nothing."""
        metadata = sa.MetaData()
        sa.Table(
            "ledger", metadata, sa.Column("id", sa.Integer, primary_key=True), sa.Column("job", sa.Integer, index=True)
        )
        app = Celery("property", broker="memory://", set_as_current=False)
        app.conf.update(confect_database_url=url, confect_batch_size=BATCH, confect_retention=RETENTION_SECONDS)
        # What is due in a second, who schedules it publishes; what is due later in the horizon, dispatchers do.
        app.conf.update(confect_horizon=3, confect_poll_interval=1.2)
        self.confect = Confect(app, schema=metadata)
        self.store = self.confect.store
        self.store.migrate()
        self.one_writer = self.store.database.url.get_backend_name() == "sqlite"
        engine = self.store.database.engine
        if self.one_writer:
            event.listen(engine, "connect", lambda c, _: c.execute("PRAGMA synchronous = OFF"))
            # One thread plays all: to wait for another's lock is to wait for ever.
            event.listen(engine, "connect", lambda c, _: c.execute("PRAGMA busy_timeout = 0"))
            engine.dispose()
        metadata.create_all(engine)
        # Who looks on takes no connection out of the shop's hands, and is through with one round trip.
        self._onlooker = sa.create_engine(url, isolation_level="AUTOCOMMIT")
        self.clock = SettableClock(START)
        self.settings = self.confect.settings
        self.horizon = int(self.settings.horizon.total_seconds() * 1e6)
        self.redelivery = int(self.settings.redelivery.total_seconds() * 1e6)
        self._stack = ExitStack()
        self._stack.enter_context(
            self.confect.redirected(clock=self.clock, publish=lambda delivery: self.callers.publish(delivery))
        )
        standing = _StandingTime(self)
        for module in ("runtime.gate", "runtime.punctual", "runtime.reconciler", "runtime.sharing", "store.database"):
            self._stack.enter_context(mock.patch(f"confect_celery.{module}.time", standing))
        self._stack.enter_context(mock.patch("confect_celery.runtime.dispatcher.time", _TickingTime()))
        # Whose numbers Hypothesis draws the same again; `drill` seeds them.
        self._stack.enter_context(mock.patch("confect_celery.timing.backoff._dice", random))
        self._wrap_the_database()
        self._watch_shared_transactions()
        self.reset()

    def close(self) -> None:
        self._stack.close()
        self.store.database.dispose()
        self._onlooker.dispose()

    def reset(self) -> None:
        """A new example: an empty table, an empty broker, all processes just started."""
        self.examples += 1
        Violation.raised = None
        with self.store.database.engine.begin() as connection:
            connection.execute(sa.text("DELETE FROM _scheduled_functions"))
            connection.execute(sa.text("DELETE FROM ledger"))
        self.clock.set(START)
        self.model = Model(RETENTION_SECONDS * 1_000_000)
        self.plans: dict[int, Plan] = {}
        self.bad_ends: dict[int, int] = {}
        self.keys = 0
        self.broker = Broker(self)
        self.running: list[Frame] = []
        self.waiting: list[Frame] = []
        """Whose end a batch records with the claim of its next row."""
        self.deaths: list[tuple[str, int, int]] = []
        self.fault: Fault | None = None
        self._fault_in = 0
        self.peace = True
        self.told: list[tuple[str, int, int]] = []
        self.told_deaths: set[str] = set()
        self.told_given_back: set[str] = set()
        self.intents: list[Callable[[], None]] = []
        self.frames: list[list[Callable[[], None]]] = []
        self.hooks: list[Callable[[], None]] = []
        self.at_the_end: list[Callable[[], None]] = []
        """What others do right before a shared transaction ends."""
        self.others_come_between = False
        """Whether somebody changes rows of a batch while a shared transaction is open."""
        self.locks_rows: list[Callable[[], None]] | None = None
        """The frame of the last transaction that locked rows which others see."""
        self.writers = 0
        self.start_dispatcher()
        self.start_worker()
        self.callers = Outbox(self.store, self.broker, self.clock)

    def start_dispatcher(self) -> None:
        """A new dispatcher process: it knows only what the table says."""
        self.outbox = Outbox(self.store, self.broker, self.clock)
        self.dispatcher = Dispatcher(self.store, self.outbox, self.clock, self.settings)

    def start_worker(self) -> None:
        """A new worker process, and a second one that sweeps as well."""
        self.told = []

        def running() -> list[str]:
            return [frame.id for frame in (*self.running, *self.waiting) if not frame.stalled]

        def redelivers(name: str) -> bool:
            return name == LATE

        self.reconciler = Reconciler(self.store, self.clock, self.settings, running, redelivers)
        self.other = Reconciler(self.store, self.clock, self.settings, lambda: [], redelivers, Monitor(self))
        prune = self.other.prune

        def seen_first() -> bool:
            self.look()  # how a row ended must be seen before it is gone
            return prune()

        self.other.prune = seen_first  # type: ignore[method-assign]

    # -- time

    @property
    def now(self) -> int:
        return self.clock.now().epoch_micros

    def advance(self, seconds: float) -> None:
        """Time passes; the workers that run something renew their leases and sweep as they do it in their loop."""
        left = round(seconds * 1e6)
        step = self.redelivery // 4
        while left > 0:
            if self.running and self.can_write:
                self.clock.advance(Duration.micros(min(left, step)))
                left -= step
                with suppress(DBAPIError):  # the loops log it and go on
                    self.reconciler.renew_leases()
                    self.other.sweep()
            else:
                self.clock.advance(Duration.micros(left))
                left = 0

    @property
    def can_write(self) -> bool:
        """SQLite has one writer: while a transaction of ours is open nobody else's write can go on."""
        return not (self.one_writer and self.writers)

    # -- what goes wrong

    @contextmanager
    def trouble(self, fault: Fault | None) -> Iterator[None]:
        """For the length of the block something goes wrong; a process that dies of it is started again."""
        self.fault, self._fault_in = fault, fault.nth if fault else 0
        self.peace = fault is None
        try:
            yield
        except Died:
            self.crash()
        except DBAPIError:
            if fault is None:
                raise
        finally:
            self.fault, self.peace = None, True

    def crash(self) -> None:
        """The host is gone, with all that its processes remembered."""
        self.running.clear()
        self.waiting.clear()
        self.at_the_end = []
        self.frames.clear()
        self.hooks.clear()
        self.writers = 0
        self.start_dispatcher()
        self.start_worker()

    def strikes(self, where: str) -> Fault | None:
        """The fault that happens at this seam."""
        fault = self.fault
        if fault is None or fault.where != where:
            return None
        self._fault_in -= 1
        if self._fault_in >= 0:
            return None
        if fault.how != "transient for long" or self._fault_in < -LONG:
            self.fault = None
        self.happened[f"{fault.how} {fault.when} a {where}"] += 1
        for frame in (*self.running, *self.waiting):  # whoever runs cannot write its end, or its lease
            self.excuse_loss(frame.key)
        return fault

    def excuse_loss(self, key: int) -> None:
        """From now on this job may end as lost, unless it is a mutation: those are tried again."""
        job = self.model.jobs.get(key)
        if job is not None and job.kind != "mutation":
            job.excuses.add("WorkerLost")
            job.losses += 1

    def hiccup(self, broken: bool = False) -> Exception:
        """What the driver raises when the same work may succeed the next time."""
        kind = self.store.database.url.get_backend_name()
        said: Any = {"sqlite": Exception("database is locked"), "mysql": Exception(1213, "Deadlock")}.get(kind)
        if said is None:
            said = Exception("deadlock")
            said.sqlstate = "40P01"
        error = OperationalError("x", {}, said)
        error.connection_invalidated = broken
        return error

    def _wrap_the_database(self) -> None:
        database, world = self.store.database, self
        transaction, statement, autocommit = database.transaction, database.statement, database.autocommit

        @contextmanager
        def dying_transaction() -> Iterator[Any]:
            world.run_hooks()
            fault = world.strikes("commit")
            if fault and fault.when == "after" and fault.how != "die" and world.one_writer:
                fault = None  # a file has no connection that breaks after the commit
            intents = list(world.intents)
            with transaction() as t:

                def committed() -> None:
                    for intent in intents:
                        intent()
                    world.intents = []
                    if fault and fault.when == "after":
                        if fault.how == "die":
                            raise Died
                        t._callbacks.clear()

                t.after_commit(committed)
                world.frames.append(intents)
                world.writers += 1
                try:
                    yield t
                finally:
                    world.writers = max(world.writers - 1, 0)
                    if world.frames:
                        world.frames.pop()
                if fault and fault.when == "before":
                    raise Died if fault.how == "die" else world.hiccup()
            if fault and fault.when == "after":
                raise world.hiccup(broken=True)

        @contextmanager
        def dying_statement() -> Iterator[Any]:
            world.run_hooks()
            fault = world.strikes("commit")
            if fault and fault.when == "after" and fault.how != "die" and world.one_writer:
                fault = None
            if fault and fault.when == "before":
                raise Died if fault.how == "die" else world.hiccup()
            intents = list(world.intents)
            quiet, database.autocommit = database.autocommit, autocommit  # type: ignore[method-assign]
            try:
                with statement() as t:
                    database.autocommit = quiet  # type: ignore[method-assign]

                    def committed() -> None:
                        for intent in intents:
                            intent()
                        world.intents = []
                        if fault:
                            if fault.how == "die":
                                raise Died
                            t._callbacks.clear()

                    t.after_commit(committed)
                    yield t
            finally:
                database.autocommit = quiet  # type: ignore[method-assign]
            if fault:
                raise world.hiccup(broken=True)

        @contextmanager
        def dying_autocommit() -> Iterator[Any]:
            fault = world.strikes("commit")
            if fault and fault.when == "before":
                raise Died if fault.how == "die" else world.hiccup()
            with autocommit() as connection:
                yield connection
            if fault and fault.how == "die":
                raise Died

        database.transaction = dying_transaction  # type: ignore[method-assign]
        database.statement = dying_statement  # type: ignore[method-assign]
        database.autocommit = dying_autocommit  # type: ignore[method-assign]

    def _watch_shared_transactions(self) -> None:
        """Their parts are savepoints: what one intends goes with it. Beginning and ending one may fail as well."""
        world, rows = self, self.store.rows
        entered, undone = SharedTransaction.enter, SharedTransaction._undo
        locked, locked_together, ended = rows.lock, rows.lock_together, rows.succeed_together

        def enter(shared: SharedTransaction, row: Pending, following: Sequence[Pending] = ()) -> Part | None:
            part = entered(shared, row, following)
            if part is not None:
                frame = world.frames[-1]
                world.savepoints[part] = (frame, len(frame))
                world.happened["a part of a shared transaction"] += len(shared.parts) > 1
            return part

        def undo(shared: SharedTransaction, part: Part) -> None:
            frame, before = world.savepoints[part]
            undone(shared, part)
            world.happened["a part undone"] += 1
            del frame[before:]

        def lock(connection: Any, id: str, attempt: int, **options: Any) -> bool:
            fault = world.strikes("enter") if options.get("savepoint") else None
            world.fail(fault, "before")
            found = locked(connection, id, attempt, **options)
            world.fail(fault, "after")
            return found

        def lock_together(connection: Any, given: Any, **options: Any) -> set[str]:
            if world.others_come_between:  # who changes them would wait for this very thread
                return set()
            fault = world.strikes("enter")
            world.fail(fault, "before")
            found = locked_together(connection, given, **options)
            world.fail(fault, "after")
            world.happened["rows locked together"] += len(found) > 1
            return found

        def end(connection: Any, parts: Any, now: DateTime, **options: Any) -> set[str]:
            if world.at_the_end and world.can_write:
                world.at_the_end.pop()()
            fault = world.strikes("end")
            world.fail(fault, "before")
            found = ended(connection, parts, now, **options)
            world.fail(fault, "after")
            world.happened["a shared transaction of more than one"] += len(parts) > 1
            return found

        self.savepoints: dict[Part, tuple[list[Callable[[], None]], int]] = {}
        self._stack.enter_context(mock.patch.object(SharedTransaction, "enter", enter))
        self._stack.enter_context(mock.patch.object(SharedTransaction, "_undo", undo))
        rows.lock = lock  # type: ignore[method-assign, assignment]
        rows.lock_together = lock_together  # type: ignore[method-assign, assignment]
        rows.succeed_together = end  # type: ignore[method-assign, assignment]

    def fail(self, fault: Fault | None, when: str) -> None:
        """What the fault says, if it is to come now."""
        if fault is not None and fault.when == when:
            raise Died if fault.how == "die" else self.hiccup()

    def run_hooks(self) -> None:
        """Have happen what was to happen before the worker's next transaction begins, or while it waits."""
        if self.hooks and self.can_write:
            self.hooks.pop(0)()

    @contextmanager
    def undisturbed(self) -> Iterator[None]:
        """Hooks are for what the worker itself writes."""
        before, self.hooks = self.hooks, []
        try:
            yield
        finally:
            self.hooks = before

    @contextmanager
    def intending(self, *intents: Callable[[], None]) -> Iterator[None]:
        """What becomes true in the model if, and only if, the transaction inside the block commits."""
        before, self.intents = self.intents, list(intents)
        try:
            with self.undisturbed():
                yield
        finally:
            self.intents = before

    # -- what is there

    def rows(self, connection: sa.Connection | None = None) -> dict[int, Row]:
        """The table by the jobs' keys, read in raw SQL; on `connection` with what its transaction wrote."""
        if connection is None:
            with self._onlooker.connect() as own:
                return self.rows(own)
        found = connection.execute(_ROWS).all()
        rows = {}
        for r in found:
            args, error = _json(r.args), _json(r.error)
            rows[args["key"]] = Row(
                args["key"], r.id, r.name, r.kind, r.state, error and error["tag"], _micros(r.scheduled_time) or 0,
                _micros(r.creation_time) or 0, _micros(r.completed_time), _micros(r.next_at), r.attempt,
                r.deliveries, r.losses,
            )  # fmt: skip
        if len(rows) != len(found):
            violated(1, "one call wrote two rows")
        return rows

    def look(self) -> dict[int, Row]:
        """Check all that must be true at any moment; gives back the rows."""
        with self._onlooker.connect() as connection:
            rows = self.rows(connection)
            counts = connection.execute(sa.text("SELECT job, COUNT(*) FROM ledger GROUP BY job")).all()
        self.model.seen(rows, {int(job): int(count) for job, count in counts}, self.now)
        return rows

    def row(self, number: int) -> Row | None:
        """Some row."""
        rows = list(self.rows().values())
        return rows[number % len(rows)] if rows else None

    # -- jobs

    def new_job(self, kind: str, plan: Plan, time: int, due: int) -> Job:
        """A job that somebody is about to schedule."""
        self.keys += 1
        self.plans[self.keys] = plan
        job = Job(self.keys, kind, time, due)
        if plan.end == "raises":
            job.excuses.add("Declared")
        if plan.end == "greedy" and kind == "mutation":
            job.excuses.add("TooManyScheduled")
        if plan.end == "cancels itself" and kind == "mutation":
            job.excuses.add("CannotCancelItself")
        return job

    def exists(self, job: Job) -> Callable[[], None]:
        """The intent: it is scheduled."""
        return lambda: self.model.jobs.__setitem__(job.key, job)

    def is_canceled(self, row: Row) -> Callable[[], None]:
        """The intent: the row is canceled, if it is alive."""

        def cancel() -> None:
            if row.state in LIVE:
                self.model.jobs[row.key].canceled = True

        return cancel

    def is_moved(self, row: Row, time: int) -> Callable[[], None]:
        """The intent: it runs at another time, if it is pending."""

        def move() -> None:
            if row.state == "pending":
                job = self.model.jobs[row.key]
                job.time = job.due = time

        return move


class _StandingTime:
    """Stands in for `time` where the package would really wait."""

    def __init__(self, world: World) -> None:
        self._world = world

    def monotonic(self) -> float:
        return (self._world.now - START.epoch_micros) / 1e6

    def sleep(self, seconds: float) -> None:
        self._world.run_hooks()
        with self._world.intending():  # what others commit meanwhile is not what waits here
            self._world.advance(max(seconds, 1e-6))


class _TickingTime:
    """Each look for due rows takes as long as the last, so that the next one may begin at a bound."""

    def __init__(self) -> None:
        self._ticks = 0

    def monotonic(self) -> float:
        self._ticks += 1
        return self._ticks * 0.01


_ROWS = sa.text(
    "SELECT id, name, kind, args, state, error, scheduled_time, creation_time, completed_time, next_at, attempt, "
    "deliveries, losses FROM _scheduled_functions ORDER BY creation_time, id"
)


def _json(value: Any) -> Any:
    return json.loads(value) if isinstance(value, (str, bytes)) else value


def _micros(value: Any) -> int | None:
    if value is None:
        return None
    when = dt.datetime.fromisoformat(value) if isinstance(value, str) else value
    when = when if when.tzinfo else when.replace(tzinfo=dt.UTC)
    return int((when - EPOCH) // dt.timedelta(microseconds=1))
