"""The scheduler: validate, encode, write the row in the caller's transaction."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Final, ParamSpec, Protocol, TypeVar, overload

from pydantic import BaseModel

from confect_celery.aio import AsyncScheduler
from confect_celery.drafts import Drafts, delay_or_time, with_times
from confect_celery.errors import CannotCancelItself, TooManyScheduled
from confect_celery.functions import (
    FunctionRef,
    InternalPath,
    Registry,
    Schedulable,
    ScheduledTaking,
    SignatureLike,
    TaskLike,
    codec,
)
from confect_celery.settings import Settings
from confect_celery.store import (
    Delivery,
    EncodedCall,
    NewRow,
    ScheduledFunction,
    ScheduledFunctionId,
    StateKind,
    Store,
    Transaction,
    new_id,
)
from confect_celery.timing import Clock, DateTime, Duration
from confect_celery.tracing import traced

__all__ = ["MOST_SCHEDULED_BY_ONE_MUTATION", "Budget", "Desk", "Scheduler"]

MOST_SCHEDULED_BY_ONE_MUTATION: Final = 1000

_FEW: Final = 20
"""The most rows of one call whose messages the scheduling process publishes itself."""

_MANY: Final = 1000
"""The most rows of one call that monitors are told of; of more they hear when the messages go out."""

T = TypeVar("T")
Model = TypeVar("Model", bound=BaseModel)
P = ParamSpec("P")
Delay = Duration | dt.timedelta
When = DateTime | dt.datetime
Job = tuple[
    Delay | When,
    Schedulable[Any, Any] | InternalPath | TaskLike | SignatureLike,
    BaseModel | Mapping[str, Any] | None,
]
"""For `run_many`. Whether the arguments fit the function no checker sees here; the call itself does."""


class Run(Protocol):
    """Does work in a transaction: one of its own, or the caller's."""

    def __call__(self, work: Callable[[Transaction], T], /, *, guarded: bool = False, single: bool = False) -> T:
        """Give back what `work` gives back. What `guarded` and `single` promise, `Database.retrying` tells; a caller's
        transaction does not mind."""
        ...


class Announcer(Protocol):
    """Is told of what has been committed, for monitors; never raises, never waits."""

    def pending(self, rows: Iterable[Delivery | NewRow], /) -> None:
        """These are scheduled, or moved to another time."""

    def canceled(self, ids: Iterable[str], /) -> None:
        """These are canceled."""


@dataclass(frozen=True, slots=True)
class Desk:
    """What every scheduler of an app shares."""

    registry: Registry
    store: Store
    clock: Clock
    settings: Settings
    drafts: Drafts
    publish: Callable[[Delivery], object]
    announcer: Announcer


@dataclass(slots=True)
class Budget:
    """How many functions one mutation may still schedule, its nested mutations included."""

    left: int = MOST_SCHEDULED_BY_ONE_MUTATION

    def take(self, count: int) -> None:
        """Use up `count`; raises TooManyScheduled."""
        if count > self.left:
            raise TooManyScheduled(MOST_SCHEDULED_BY_ONE_MUTATION)
        self.left -= count


@dataclass(frozen=True)
class Scheduler:
    """Schedules internal mutations and actions, and any task of the shop's.

    As a mutation's service it works inside the mutation's transaction. As an action's service, and as
    `confect.scheduler`, each call commits at once; `using()` joins a transaction of the caller's instead.
    """

    _desk: Desk
    _run: Run
    _parent: ScheduledFunctionId | None = None
    """The scheduled function that runs, and so becomes the parent of what it schedules."""
    _itself: ScheduledFunctionId | None = None
    """The running mutation's own row: it cannot be cancelled from inside."""
    _budget: Budget | None = field(default=None)
    _reading: Callable[[Callable[[Any], Any]], Any] | None = None
    """How to read without a transaction that writes; None where it must be seen what the transaction wrote."""

    def using(self, bind: Any) -> Scheduler:
        """The same scheduler inside the open transaction of a SQLAlchemy Connection or Session, or, where the table is
        in PostgreSQL, of a psycopg connection.

        What it writes exists if and only if that transaction commits. On a Session what dispatchers may find too late
        is published right after the commit; on a bare connection one finds it within `confect_poll_interval`.
        """
        database = self._desk.store.database
        return replace(self, _run=lambda work, **_: work(database.join(bind)), _reading=None)

    @property
    def aio(self) -> AsyncScheduler:
        """The same for async callers."""
        return AsyncScheduler(self)

    @overload
    def run_after(self, delay: Delay, function: Schedulable[None, Any], args: None = None) -> ScheduledFunctionId: ...
    @overload
    def run_after(
        self, delay: Delay, function: Schedulable[Model, Any], args: Model | Mapping[str, Any]
    ) -> ScheduledFunctionId: ...
    @overload
    def run_after(
        self, delay: Delay, function: ScheduledTaking[P], *args: P.args, **kwargs: P.kwargs
    ) -> ScheduledFunctionId: ...
    @overload
    def run_after(
        self, delay: Delay, function: InternalPath, args: BaseModel | Mapping[str, Any] | None = None
    ) -> ScheduledFunctionId: ...
    @overload
    def run_after(
        self, delay: Delay, function: TaskLike | SignatureLike, args: Mapping[str, Any] | None = None
    ) -> ScheduledFunctionId: ...
    def run_after(  # type: ignore[misc]  # P is (args)
        self, delay: Delay, function: Any, args: Any = None
    ) -> ScheduledFunctionId:
        """Schedule `function` to run once `delay` has passed; gives back the id of its row.

        `function` is an internal mutation or action, by ref or by `refs` path, or a Celery task or signature. `args` is
        its model, or a mapping that fits it.

        Raises NotSchedulable, UnknownFunction, InvalidArguments, ArgumentsTooLarge, DelayOutOfRange, TooManyScheduled,
        and InvalidTime for a delay that is no Duration or timedelta. No row exists then.
        """
        return self._schedule([(Duration.of(delay), function, args)])[0].id

    @overload
    def run_at(self, when: When, function: Schedulable[None, Any], args: None = None) -> ScheduledFunctionId: ...
    @overload
    def run_at(
        self, when: When, function: Schedulable[Model, Any], args: Model | Mapping[str, Any]
    ) -> ScheduledFunctionId: ...
    @overload
    def run_at(
        self, when: When, function: ScheduledTaking[P], *args: P.args, **kwargs: P.kwargs
    ) -> ScheduledFunctionId: ...
    @overload
    def run_at(
        self, when: When, function: InternalPath, args: BaseModel | Mapping[str, Any] | None = None
    ) -> ScheduledFunctionId: ...
    @overload
    def run_at(
        self, when: When, function: TaskLike | SignatureLike, args: Mapping[str, Any] | None = None
    ) -> ScheduledFunctionId: ...
    def run_at(  # type: ignore[misc]  # P is (args)
        self, when: When, function: Any, args: Any = None
    ) -> ScheduledFunctionId:
        """Schedule `function` to run at `when`. A time in the past is due after `confect_min_delay`.

        Raises as `run_after` does, and NaiveDateTime for a datetime without a zone.
        """
        return self._schedule([(DateTime.of(when), function, args)])[0].id

    def run_many(self, jobs: Iterable[Job]) -> list[ScheduledFunctionId]:
        """Schedule `(delay or time, function, args)` many times over, all or none; gives back the ids in order."""
        return [row.id for row in self._schedule(with_times(jobs))]

    def cancel(self, id: str) -> bool:
        """Cancel the function: True when this call did it, and then it will not start.

        False when it is unknown, has ended, or was cancelled before. An action that is running runs on, and its result
        is ignored. A mutation that is running either commits first, and this is False, or rolls back. Brief ones of a
        batch that share a transaction are waited for on PostgreSQL: 20 ms as a rule, half a second at most from 17 on.
        Raises CannotCancelItself inside the mutation `id`.
        """
        self._refuse_itself(id)
        now = self._desk.clock.now()
        store = self._desk.store
        tried = False

        def cancel(transaction: Transaction) -> bool:
            nonlocal tried
            again, tried = tried, True
            done = store.rows.cancel(transaction.connection, id, now)
            if again and not done:  # the try before may have done it, and its answer got lost
                row = store.rows.get(transaction.connection, id)
                done = row is not None and row.state.kind is StateKind.CANCELED and row.completed_time == now
            store.events.canceled(transaction, id, done)
            if done:
                transaction.after_commit(lambda: self._desk.announcer.canceled([id]))
            return done

        return self._run(cancel, guarded=True, single=True)

    def reschedule(self, id: str, when: Delay | When) -> bool:
        """Move a pending function to another time, counted from now or absolute, within the same bounds.

        False when it is unknown, running, or has ended.
        """
        self._refuse_itself(id)
        now = self._desk.clock.now()
        scheduled, due = self._desk.drafts.aim(delay_or_time(when), now)

        def move(transaction: Transaction) -> bool:
            moved: list[Delivery] = []
            transaction.after_commit(lambda: self._desk.announcer.pending(moved))
            lost_at = self._publish_after_commit(transaction, due, now, lambda: moved[0] if moved else None)
            delivery = self._desk.store.rows.reschedule(transaction.connection, id, scheduled, due, lost_at)
            if delivery is not None:
                moved.append(delivery)
                self._desk.store.events.rescheduled(transaction, id, due)
            return delivery is not None

        return self._run(move)

    def retry(self, id: str, when: Delay | When | None = None) -> ScheduledFunctionId | None:
        """Schedule what failed or was canceled anew, at once if not `when`; gives back the id of the new row.

        It has the same function, arguments, options and parent; the old row stays as it is. None when `id` is unknown,
        or neither failed nor canceled. Raises UnknownFunction and InvalidArguments where the code would not run it any
        more, and DelayOutOfRange.
        """
        desk, now = self._desk, self._desk.clock.now()
        scheduled, due = self._desk.drafts.aim(desk.settings.min_delay if when is None else delay_or_time(when), now)

        def again(transaction: Transaction) -> ScheduledFunctionId | None:
            old = desk.store.rows.get(transaction.connection, id)
            if old is None or old.state.kind not in (StateKind.FAILED, StateKind.CANCELED):
                return None
            if old.kind != "task":
                codec.decode(desk.registry.get(old.name), old.args)
            if self._budget is not None:
                self._budget.take(1)
            options = {name: value for name, value in old.options.items() if name != "retries"}
            row = NewRow(new_id(now), old.name, old.kind, old.args, scheduled, now, due, options, old.parent_id)
            self._write(transaction, [row], now)
            return row.id

        return self._run(again)

    def get(self, id: str) -> ScheduledFunction | None:
        """The scheduled function, whatever its state; None when it is unknown, or pruned after `confect_retention`."""
        rows = self._desk.store.rows
        if self._reading is not None:
            found: ScheduledFunction | None = self._reading(lambda connection: rows.get(connection, id))
            return found
        return self._run(lambda transaction: rows.get(transaction.connection, id))

    # -- for what Celery was asked for, and what concerns rows

    def live(self, ids: Sequence[str]) -> list[str]:
        """Which of these ids are pending or running rows: one statement that locks nothing."""
        rows = self._desk.store.rows
        if self._reading is not None:
            found: list[str] = self._reading(lambda connection: rows.live(connection, ids))
            return found
        return self._run(lambda transaction: rows.live(transaction.connection, ids))

    def take_over(self, call: EncodedCall, id: str | None, due: DateTime, *, sent: bool) -> str | None:
        """Write the row of a call, whatever its time; None where a row of this id stands already. `sent`: Celery brings
        the message itself, and the row is looked at only when that did not come in time."""
        if self._budget is not None:
            self._budget.take(1)
        now, rows = self._desk.clock.now(), self._desk.store.rows
        own = new_id(now) if id is None else ScheduledFunctionId(id)
        options = traced(call.options, later=not self._desk.drafts.is_near(due, now))
        row = NewRow(own, call.name, call.kind, call.args, due, now, due, options, self._parent)

        def write(transaction: Transaction) -> str | None:
            if id is not None and rows.state(transaction.connection, id) is not None:
                return None
            if sent:
                delivered: dict[str, DateTime] = {own: max(due, now) + self._desk.settings.redelivery}
                born = self._born(transaction)
                rows.insert(transaction.connection, [row], delivered_until=delivered, born=born)
                self._desk.store.events.scheduled(transaction, [row], canceled=born.terminal)
            else:
                self._write(transaction, [row], now)
            return own

        return self._run(write)

    def take_over_function(
        self, ref: FunctionRef[Any, Any], args: Any, id: str | None, due: DateTime, options: Mapping[str, Any]
    ) -> str | None:
        """The same for a function, with the options of the call besides its own."""
        call = self._desk.drafts.call(ref, args)
        return self.take_over(replace(call, options={**call.options, **options}), id, due, sent=False)

    def encode(self, function: Any, args: Any) -> EncodedCall:
        """The call as its row would hold it; raises as `run_after` does."""
        return self._desk.drafts.call(function, args)

    # -- how

    def _schedule(self, jobs: Sequence[tuple[Duration | DateTime, Any, Any]]) -> Sequence[NewRow]:
        if self._budget is not None:
            self._budget.take(len(jobs))
        now = self._desk.clock.now()
        # A row that cannot be made while the server takes others undoes the transaction, so that has to be all ours.
        block = None if self._reading is None else self._desk.store.database.dialect.block
        rows, near = self._desk.drafts.rows(jobs, now, self._parent, block)
        if not rows:
            return rows
        tries = 0

        def write(transaction: Transaction) -> None:
            nonlocal tries
            tries += 1
            # Where a connection broke during the commit, the rows stand already, or none does.
            there = tries > 1 and self._desk.store.rows.state(transaction.connection, rows[0].id) is not None
            self._write(transaction, rows, now, near=near, there=there)

        self._run(write, guarded=True, single=len(rows) == 1)
        return rows

    def _write(
        self, transaction: Transaction, rows: Sequence[NewRow], now: DateTime, *, near: bool = True, there: bool = False
    ) -> None:
        born = self._born(transaction)
        if born is StateKind.PENDING and len(rows) <= _MANY:
            # Told first, so that monitors have it pending before a worker has it.
            transaction.after_commit(partial(self._desk.announcer.pending, rows))
        delivered_until: dict[str, DateTime] = {}
        if near and born is StateKind.PENDING and len(rows) <= _FEW:
            for row in rows:
                lost_at = self._publish_after_commit(transaction, row.due, now, row.to_delivery)
                if lost_at is not None:
                    delivered_until[row.id] = lost_at
        if not there:
            self._desk.store.rows.insert(transaction.connection, rows, delivered_until=delivered_until, born=born)
        self._desk.store.events.scheduled(transaction, rows, canceled=born is StateKind.CANCELED)

    def _born(self, transaction: Transaction) -> StateKind:
        # What a canceled action still schedules is born canceled, as on Convex: it keeps its id and never runs.
        if self._parent is None or self._parent == self._itself:
            return StateKind.PENDING
        state = self._desk.store.rows.state(transaction.connection, self._parent)
        return StateKind.CANCELED if state is StateKind.CANCELED else StateKind.PENDING

    def _publish_after_commit(
        self, transaction: Transaction, due: DateTime, now: DateTime, delivery: Callable[[], Delivery | None]
    ) -> DateTime | None:
        # What dispatchers may find too late we publish right after the commit; should we die before that, one will at
        # the time given back. The rest is theirs, who send together what they can, unless the commit comes so late.
        drafts, clock = self._desk.drafts, self._desk.clock
        if not drafts.is_near(due, now):
            return None
        urgent = drafts.is_urgent(due, now)

        def publish() -> None:
            made = delivery() if urgent or drafts.is_urgent(due, clock.now()) else None
            if made is not None:
                self._desk.publish(made)

        if not (transaction.after_commit(publish) and urgent):
            return None
        return now + self._desk.settings.horizon + self._desk.settings.redelivery

    def _refuse_itself(self, id: str) -> None:
        if self._itself is not None and id == self._itself:
            raise CannotCancelItself(id)
