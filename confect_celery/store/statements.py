"""Every statement on `_scheduled_functions`: one method a transition, each guarded by the states it may leave.

A guarded UPDATE answers by its row count: 1, the transition happened; 0, somebody else was first, or the row is not
what the caller took it for; more is a bug and raises. Times come in as arguments; nothing here reads a clock.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.types import TypeDecorator

from confect_celery.store.dialects.base import Dialect, lock_number
from confect_celery.store.ids import first_id_at
from confect_celery.store.inserts import Insert, lots
from confect_celery.store.prepared import Prepared
from confect_celery.store.query.system import SystemTable
from confect_celery.store.row import (
    TRANSITIONS,
    Delivery,
    EncodedCall,
    NewRow,
    Pending,
    RowKind,
    ScheduledFunction,
    ScheduledFunctionId,
    StateKind,
    Transition,
)
from confect_celery.timing import DateTime, Duration

__all__ = ["Dead", "Pending", "Statements"]

logger = logging.getLogger(__name__)

_DOUBLINGS: Final = 6

HELD: Final = -1
"""The `deliveries` of a row that a child of a worker holds for itself, with others, and has not begun."""

IN_DOUBT: Final = -2
"""The same, where the database has failed since: what began may be forgotten. Who holds it has HELD_FOR to tell."""

HELD_FOR: Final = Duration.seconds(10)
"""How long it may hold a row."""

_SURE: Final = Duration.seconds(1)
"""Each process measures the time for itself: what is older by so much is surely older."""


_RAW: Final = 4_000
"""How many characters of an unreadable column are kept."""

_AHEAD: Final = Duration.days(1)
"""No clock is so far ahead that ids of ours lie beyond."""


@dataclass(frozen=True, slots=True)
class Dead:
    """A running row that nobody answers for."""

    id: ScheduledFunctionId
    name: str
    kind: RowKind
    attempt: int


class Statements:
    """The statements, built once for one table; each method runs one of them on the caller's connection."""

    def __init__(self, table: sa.Table, dialect: Dialect) -> None:
        self.table = table
        self._dialect = dialect
        self._ready: dict[sa.ClauseElement, Prepared] = {}
        self.system = SystemTable(table)
        c = self._c = table.c
        self._insert = Insert(table)
        one = c.id == sa.bindparam("row", type_=_AnyId())
        attempt = c.attempt == sa.bindparam("at_attempt", type_=_AnyAttempt())
        picked = dialect.among(c.id, "rows", _AnyId())
        self._get = sa.select(table).where(one)
        self._pending = [c.id, c.name, c.kind, c.args, c.attempt, c.scheduled_time, c.options, c.creation_time]
        self._pending.append(c.parent_id)
        self._load = sa.select(*self._pending).where(one, attempt, _is(c.state, StateKind.PENDING))
        self._load_many = sa.select(*self._pending).where(picked, _is(c.state, StateKind.PENDING))
        still = sa.and_(picked, _is(c.state, StateKind.PENDING))
        self._count_pending = sa.select(sa.func.count()).select_from(table).where(still)
        self._load_locked = self._load.add_columns(dialect.lock)
        self._lock = sa.select(dialect.lock).where(one, attempt, _is(c.state, StateKind.PENDING))
        self._lock_relaxed = self._lock if dialect.relaxed is None else self._lock.add_columns(dialect.relaxed)
        each = dialect.lock_each(sa.select(c.id).where(attempt, _is(c.state, StateKind.PENDING)), c.id, _AnyId())
        self._lock_together = each
        self._lock_together_relaxed = each if dialect.relaxed is None else each.add_columns(dialect.relaxed)
        self._state = sa.select(c.state).where(one)
        self._live = sa.select(c.id).where(
            picked,
            sa.or_(_is(c.state, StateKind.PENDING), _is(c.state, StateKind.IN_PROGRESS)),
        )

        now = sa.bindparam("now", type_=c.next_at.type)
        then = sa.bindparam("then", type_=c.next_at.type)
        error = sa.bindparam("failure", type_=c.error.type)
        done: dict[str, Any] = {"completed_time": now, "next_at": None}
        again: dict[str, Any] = {"next_at": then, "attempt": c.attempt + 1, "deliveries": 0}

        self._cancel = self._transition("cancel", one, done)
        self._succeed_pending = self._transition("succeed_pending", sa.and_(one, attempt), done)
        together = sa.and_(picked, attempt)
        self._succeed_together = self._transition("succeed_pending", together, done).returning(c.id)
        self._fail_pending = self._transition("fail_pending", sa.and_(one, attempt), {**done, "error": error})
        self._succeed_running = self._transition("succeed_running", sa.and_(one, attempt), done)
        self._fail_running = self._transition("fail_running", sa.and_(one, attempt), {**done, "error": error})
        self._postpone = self._transition("postpone", sa.and_(one, attempt), again)
        lost = {**again, "losses": c.losses + sa.bindparam("lost", type_=sa.Integer)}
        self._lose = self._transition("postpone", sa.and_(one, attempt), lost)
        self._retry = self._transition(
            "retry",
            sa.and_(one, attempt),
            {
                **again,
                "deliveries": sa.bindparam("delivered"),
                "args": sa.bindparam("call_args", type_=c.args.type),
                "options": sa.bindparam("call_options", type_=c.options.type),
            },
        )
        self._requeue = self._transition("retry", sa.and_(one, attempt), lost)
        scheduled = sa.bindparam("scheduled", type_=c.next_at.type)
        self._reschedule = self._transition(
            "reschedule",
            one,
            {
                "scheduled_time": scheduled,
                "next_at": then,
                "attempt": c.attempt + 1,
                "deliveries": sa.bindparam("delivered"),
            },
        )
        self._start = self._transition("start", sa.and_(one, attempt), {"next_at": then, "attempt": c.attempt + 1})

        held = c.deliveries < 0
        unbegun = sa.and_(picked, attempt, held)
        self._hold = self._transition(
            "hold", sa.and_(picked, attempt), {"next_at": then, "attempt": c.attempt + 1, "deliveries": HELD}
        ).returning(c.id)
        self._doubt = self._transition("doubt", sa.and_(picked, held), {"next_at": then, "deliveries": IN_DOUBT})
        self._held_until = sa.select(c.id).where(unbegun, _is(c.state, StateKind.PENDING), c.next_at == then)
        self._release = self._transition("release", unbegun, {"next_at": then, "deliveries": 0})
        begun = {"next_at": then, "attempt": c.attempt + 1, "deliveries": 1}
        # Once it was handed over to others, a begin that the database may forget could be followed by another.
        begin = self._transition("start", sa.and_(one, attempt, held), begun)

        ended = sa.and_(
            c.id == sa.bindparam("ended_row", type_=_AnyId()),
            c.attempt == sa.bindparam("ended_attempt", type_=_AnyAttempt()),
        )
        succeeded = self._transition("succeed_running", ended, done).returning(c.id).cte("ended")
        self._succeed_and_start = _counts(succeeded, self._start.returning(c.id).cte("started"))
        self._succeed_and_begin = _counts(succeeded, begin.returning(c.id).cte("started"))
        self._begin_relaxed = _counts(begin.returning(c.id).cte("started"))
        if dialect.relaxed is not None:
            self._succeed_and_begin = self._succeed_and_begin.add_columns(dialect.relaxed)
            self._begin_relaxed = self._begin_relaxed.add_columns(dialect.relaxed)

        batch = sa.bindparam("batch", type_=sa.Integer)
        ahead = sa.bindparam("ahead", type_=c.next_at.type)
        due = sa.and_(
            c.next_at <= ahead,
            _is(c.state, StateKind.PENDING),
            # Only a row that was not handed over yet is taken ahead of its time.
            sa.or_(c.deliveries == 0, c.next_at <= now),
        )
        self._delivery = [c.id, c.name, c.kind, c.args, c.next_at, c.attempt, c.options, c.parent_id, c.deliveries]
        self._oldest_due: sa.Select[Any] = sa.select(c.next_at).where(due).order_by(c.next_at).limit(1)
        self._pick_due: sa.Select[Any] = (
            sa.select(*self._delivery)
            .where(due)
            .order_by(c.next_at, c.id)
            .limit(batch)
            .with_for_update(skip_locked=True)
        )
        # Two texts each, not one with an OR: only a plain bound is where a scan of the index may begin.
        bounded = c.next_at >= sa.bindparam("since", type_=c.next_at.type)
        self._oldest_due_since, self._pick_due_since = self._oldest_due.where(bounded), self._pick_due.where(bounded)
        waits = [sa.bindparam(f"lost_at_{n}", type_=c.next_at.type) for n in range(_DOUBLINGS + 1)]
        doubled = sa.case({HELD: waits[0], **dict(enumerate(waits[:-1]))}, value=c.deliveries, else_=waits[-1])
        handed = sa.case((c.deliveries == HELD, 1), else_=c.deliveries + 1)
        # What cannot be read is kept in the error, as text, so that the row can be listed again.
        condemned = {**done, "error": error, "args": {}, "options": {}}
        self._condemn = self._transition("fail_pending", one, condemned)
        self._raw = sa.select(sa.cast(c.args, sa.Text), sa.cast(c.options, sa.Text)).where(one)
        self._hand_over = self._transition("hand_over", picked, {"next_at": doubled, "deliveries": handed})
        self._take_back = self._transition(
            "hand_over", sa.and_(one, attempt), {"next_at": then, "deliveries": sa.bindparam("delivered")}
        )

        dead = sa.and_(c.next_at <= now, _is(c.state, StateKind.IN_PROGRESS))
        # Without the order a generic plan may take "the first of very many" for cheap, and read the whole table.
        self._any_dead: sa.Select[Any] = sa.select(c.next_at).where(dead).order_by(c.next_at, c.id).limit(1)
        self._pick_dead = (
            sa.select(c.id, c.name, c.kind, c.attempt)
            .where(dead)
            .order_by(c.next_at, c.id)
            .limit(batch)
            .with_for_update(skip_locked=True)
        )
        self._bury = self._transition("fail_running", picked, {**done, "error": error})
        self._renew = sa.update(table).where(picked, _is(c.state, StateKind.IN_PROGRESS)).values(next_at=then)
        self._finished = [c.state == _literal(kind) for kind in StateKind if kind.terminal]

    def _prepared(self, statement: sa.ClauseElement) -> Prepared:
        found = self._ready.get(statement)
        if found is None:
            found = self._ready[statement] = Prepared(statement)
        return found

    def _quickly(
        self, connection: sa.Connection, statement: sa.ClauseElement, parameters: Mapping[str, Any]
    ) -> sa.CursorResult[Any]:
        # For what is executed for each row, where nobody minds which types the driver gives.
        return self._prepared(statement).execute(connection, parameters)

    def _transition(self, name: str, guard: sa.ColumnElement[bool], values: Mapping[str, Any]) -> sa.Update:
        transition: Transition = TRANSITIONS[name]
        leaves = sa.or_(*(_is(self._c.state, kind) for kind in transition.leaves))
        return sa.update(self.table).where(guard, leaves).values(state=_literal(transition.enters), **values)

    # -- reading

    def get(self, connection: sa.Connection, id: str) -> ScheduledFunction | None:
        """The row, whatever its state."""
        row = connection.execute(self._get, {"row": id}).one_or_none()
        return None if row is None else self.system.to_scheduled_function(row)

    def load(self, connection: sa.Connection, id: str, attempt: int) -> Pending | None:
        """The row, if it is pending at this attempt."""
        row = connection.execute(self._load, {"row": id, "at_attempt": attempt}).one_or_none()
        return None if row is None else Pending(*row)

    def load_many(self, connection: sa.Connection, ids: Sequence[str]) -> dict[str, Pending]:
        """Those of the rows that are pending, by their ids. Where one cannot be read, none: each is read alone then."""
        try:
            rows = connection.execute(self._load_many, {"rows": list(ids)}).all()
        except ValueError:
            return {}
        return {row.id: Pending(*row) for row in rows}

    def count_pending(self, connection: sa.Connection, ids: Sequence[str]) -> int:
        """How many of these rows are pending."""
        count: int = connection.execute(self._count_pending, {"rows": list(ids)}).scalar_one()
        return count

    def load_locked(self, connection: sa.Connection, id: str, attempt: int) -> Pending | None:
        """The same, its advisory lock taken for the rest of the transaction; None also where somebody else has it.

        What the lock's last owner has committed meanwhile is not seen: the transition at the end will tell.
        """
        row = connection.execute(
            self._load_locked, {"row": id, "at_attempt": attempt, "lock": lock_number(id)}
        ).one_or_none()
        if row is None:
            return None
        self._dialect.note_lock(connection)
        *pending, locked = row
        return Pending(*pending) if locked else None

    def lock(
        self, connection: sa.Connection, id: str, attempt: int, *, relaxed: bool = False, savepoint: str | None = None
    ) -> bool:
        """Lock a row that was read before, as `load_locked` does: whether it is pending at this attempt still, so that
        what was read of it is true, and nobody else has it.

        `relaxed`: the transaction's commit waits for no disk, on a database that can do so. `savepoint`: one of this
        name is begun before.
        """
        statement = self._lock_relaxed if relaxed else self._lock
        parameters = {"row": id, "at_attempt": attempt, "lock": lock_number(id)}
        row: Any = (
            self._quickly(connection, statement, parameters).one_or_none()
            if savepoint is None
            else self._dialect.in_savepoint(connection, savepoint, self._prepared(statement), parameters)
        )
        if row is None:
            return False
        self._dialect.note_lock(connection)
        return bool(row[0])

    def lock_together(self, connection: sa.Connection, rows: Sequence[Pending], *, relaxed: bool = False) -> set[str]:
        """Lock these, of one attempt, that were read before; where the dialect `shares`. Gives back the ids of those
        that are pending at it still, that nobody else has, and that nobody else will change before the transaction
        ends."""
        (attempt,) = {row.attempt for row in rows}
        ids = [row.id for row in rows]
        parameters = {"rows": ids, "locks": [lock_number(id) for id in ids], "at_attempt": attempt}
        found = connection.execute(self._lock_together_relaxed if relaxed else self._lock_together, parameters)
        return {id for id, locked, *_ in found if locked}

    def state(self, connection: sa.Connection, id: str) -> StateKind | None:
        """The row's state."""
        found = self._quickly(connection, self._state, {"row": id}).scalar_one_or_none()
        return None if found is None else StateKind(found)

    def live(self, connection: sa.Connection, ids: Sequence[str]) -> list[str]:
        """Which of these are ids of rows that are pending or inProgress."""
        return list(connection.scalars(self._live, {"rows": list(ids)}))

    def upcoming(
        self, connection: sa.Connection, after: tuple[DateTime, str] | None, batch: int
    ) -> list[tuple[DateTime, Delivery]]:
        """Up to `batch` pending rows, next first, each with its `next_at`; go on after the last's `(next_at, id)`."""
        c = self._c
        chosen = sa.select(c.next_at, c.id, c.name, c.kind, c.args, c.scheduled_time, c.attempt, c.options, c.parent_id)
        chosen = chosen.where(c.next_at.is_not(None), _is(c.state, StateKind.PENDING))
        if after is not None:
            chosen = chosen.where(c.next_at >= after[0], sa.or_(c.next_at > after[0], c.id > after[1]))
        rows = connection.execute(chosen.order_by(c.next_at, c.id).limit(batch))
        return [(next_at, Delivery(*row)) for next_at, *row in rows]

    # -- scheduling

    def insert(
        self,
        connection: sa.Connection,
        rows: Sequence[NewRow],
        *,
        delivered_until: Mapping[str, DateTime],
        born: StateKind,
    ) -> None:
        """∅ → pending, or ∅ → canceled. `delivered_until` holds the rows that the caller itself will publish after the
        commit, with the time at which their message counts as lost."""
        made = lots(rows, delivered_until, born)
        if len(rows) == 1:
            self._insert.one(connection, made[0])
        else:
            self._dialect.insert_many(connection, self._insert, made)

    def cancel(self, connection: sa.Connection, id: str, now: DateTime) -> bool:
        """pending | inProgress → canceled."""
        return _one(self._quickly(connection, self._cancel, {"row": id, "now": now}))

    def reschedule(
        self, connection: sa.Connection, id: str, scheduled: DateTime, due: DateTime, delivered_until: DateTime | None
    ) -> Delivery | None:
        """pending → pending at another time, with a new attempt: messages that are under way start nothing.

        Gives back what to publish, or None where no pending row was found.
        """
        parameters = {
            "row": id,
            "scheduled": scheduled,
            "then": delivered_until or due,
            "delivered": int(delivered_until is not None),
        }
        if not _one(connection.execute(self._reschedule, parameters)):
            return None
        row = connection.execute(sa.select(*self._delivery).where(self._c.id == id)).one()
        return dataclasses.replace(Delivery(*row), due=due, deliveries=0)

    # -- the dispatcher

    def oldest_due(
        self, connection: sa.Connection, *, now: DateTime, ahead: DateTime, since: DateTime | None = None
    ) -> DateTime | None:
        """As of when the first row that `claim_due` would find waits; None where it would find none.

        It takes no lock, on SQLite not even the wait for the writer. Rows whose `next_at` is before `since` are not
        looked at: while somebody holds an old snapshot open, PostgreSQL cannot clear away the index entries of rows
        that were due once, and a look without a bound passes over all of them. Nothing keeps a transaction from
        committing a row before any bound, so now and then a look must do without (`runtime.floor`).
        """
        bounds = {"now": now, "ahead": ahead}
        if since is None:
            found: DateTime | None = connection.execute(self._oldest_due, bounds).scalar()
        else:
            found = connection.execute(self._oldest_due_since, {**bounds, "since": since}).scalar()
        return found

    def claim_due(
        self,
        connection: sa.Connection,
        *,
        now: DateTime,
        ahead: DateTime,
        redelivery: Duration,
        batch: int,
        since: DateTime | None = None,
    ) -> list[Delivery]:
        """pending → pending, handed over: up to `batch` rows due until `ahead`, and those whose message should have
        arrived by `now` but did not. Rows that another dispatcher is taking are skipped, and those before `since`.

        A message counts as lost `redelivery` after `ahead`, and twice as long each time it is lost again.
        """
        bounds: dict[str, Any] = {"now": now, "ahead": ahead, "batch": batch}
        pick = self._pick_due if since is None else self._pick_due_since
        if since is not None:
            bounds["since"] = since
        try:
            rows: Sequence[Any] = connection.execute(pick, bounds).all()
        except ValueError:  # one of them cannot be read: the others must not wait for it
            ids = connection.scalars(pick.with_only_columns(self._c.id), bounds).all()
            rows = [row for id in ids if (row := self._readable(connection, id, now)) is not None]
        if any(row.deliveries < 0 for row in rows):
            rows = self._sort_out_held(connection, rows, now)
        if not rows:
            return []
        waits = {f"lost_at_{n}": ahead + redelivery * 2**n for n in range(_DOUBLINGS + 1)}
        taken = connection.execute(self._hand_over, {"rows": [row.id for row in rows], **waits}).rowcount
        if taken != len(rows):
            raise AssertionError(f"{len(rows)} rows were locked but {taken} changed")
        return [Delivery(*row) for row in rows]

    def _sort_out_held(self, connection: sa.Connection, rows: Sequence[Any], now: DateTime) -> Sequence[Any]:
        """Of rows that were held too long: those that have not begun, as far as the table tells, may be taken.

        A begin is committed, but not flushed: a database that has failed since may have forgotten it. Who holds the row
        may only have waited for the database, and has some time more to begin it, or to give it back. Then the row
        fails, for it may have begun.
        """
        since = self._dialect.kept_all_since(connection)
        safe: list[Any] = []
        doubtful: list[str] = []
        for row in rows:
            if row.deliveries >= 0:
                safe.append(row)
                continue
            if row.deliveries == HELD:
                kept = since is not None and row.next_at - HELD_FOR > since + _SURE
                safe += [row] * kept
                doubtful += [row.id] * (not kept)
                continue
            message = "Its worker was lost, and the database failed since: it may have begun."
            failure = {"tag": "WorkerLost", "message": message}
            parameters = {"row": row.id, "at_attempt": row.attempt, "now": now, "failure": failure}
            _one(self._quickly(connection, self._fail_pending, parameters))
            logger.error("The row %s is failed: %s", row.id, message)
        if doubtful:
            connection.execute(self._doubt, {"rows": doubtful, "then": now + HELD_FOR})
        return safe

    def _readable(self, connection: sa.Connection, id: str, now: DateTime) -> Any:
        """pending → failed where somebody wrote what is not JSON, or no time."""
        try:
            return connection.execute(sa.select(*self._delivery).where(self._c.id == id)).one()
        except ValueError as unreadable:
            args, options = connection.execute(self._raw, {"row": id}).one()
            message = f"Its row cannot be read: {unreadable}. Somebody wrote it by hand."
            data = {"args": str(args)[:_RAW], "options": str(options)[:_RAW]}
            failure = {"tag": "Unreadable", "message": message, "data": data}
            _one(connection.execute(self._condemn, {"row": id, "now": now, "failure": failure}))
            logger.error("The row %s is failed: %s", id, message)
            return None

    def take_back(
        self, connection: sa.Connection, id: str, attempt: int, due: DateTime, *, delivered: bool = False
    ) -> bool:
        """pending → pending, not handed over after all: the broker did not take the message. `delivered`: it did, but
        who had it cannot run it; the next one is for this row alone."""
        parameters = {"row": id, "at_attempt": attempt, "then": due, "delivered": int(delivered)}
        return _one(self._quickly(connection, self._take_back, parameters))

    # -- the gate

    def warm_up(self, connection: sa.Connection) -> None:
        """Execute what a gate executes, for no row: the texts are compiled once a process, some 10 ms each."""
        nobody = {"row": "", "at_attempt": -1}
        never: dict[str, Any] = {"now": DateTime.from_epoch_millis(0), "then": DateTime.from_epoch_millis(0)}
        connection.execute(self._load_many, {"rows": [""]})
        connection.execute(self._load_locked, {**nobody, "lock": 0})
        for locking in (self._lock, self._lock_relaxed):
            self._quickly(connection, locking, {**nobody, "lock": 0})
        if self._dialect.shares:
            for locking in (self._lock_together, self._lock_together_relaxed):
                connection.execute(locking, {"rows": [""], "locks": [0], "at_attempt": -1})
            connection.execute(self._succeed_together, {"rows": [""], "at_attempt": -1, "now": never["now"]})
        for statement in (self._succeed_pending, self._start, self._succeed_running):
            self._quickly(connection, statement, {**nobody, **never})

    def start(self, connection: sa.Connection, id: str, attempt: int, lease_until: DateTime) -> bool:
        """pending → inProgress. The attempt grows by one, and the runner owns the row until `lease_until`."""
        return _one(self._quickly(connection, self._start, {"row": id, "at_attempt": attempt, "then": lease_until}))

    def succeed_and_start(
        self,
        connection: sa.Connection,
        ended: str,
        ended_attempt: int,
        now: DateTime,
        id: str,
        attempt: int,
        lease_until: DateTime,
    ) -> tuple[bool, bool]:
        """`succeed_running` of one row and `start` of another, each by its own guard: what each of them gives back.

        One statement where the dialect `changes_in_ctes`, else two, of one transaction.
        """
        if not self._dialect.changes_in_ctes:
            done = self.succeed_running(connection, ended, ended_attempt, now)
            return done, self.start(connection, id, attempt, lease_until)
        parameters = {"ended_row": ended, "ended_attempt": ended_attempt, "now": now}
        parameters |= {"row": id, "at_attempt": attempt, "then": lease_until}
        counts: Any = self._quickly(
            connection, self._succeed_and_start, parameters
        ).one()  # pyright takes it for ten columns
        done, started = counts
        return done == 1, started == 1

    def hold(self, connection: sa.Connection, rows: Sequence[Pending], until: DateTime) -> set[str]:
        """pending → pending, for these alone who asks: rows of one attempt, which grows. Others may have them again
        `until`. Gives back the ids of those that were pending still."""
        (attempt,) = {row.attempt for row in rows}
        parameters = {"rows": [row.id for row in rows], "at_attempt": attempt, "then": until}
        return set(connection.scalars(self._hold, parameters))

    def held(self, connection: sa.Connection, rows: Sequence[Pending], until: DateTime) -> set[str]:
        """Which of these a `hold` with the same arguments has held: for who never got its answer."""
        (attempt,) = {row.attempt for row in rows}
        parameters = {"rows": [row.id for row in rows], "at_attempt": attempt + 1, "then": until}
        return set(connection.scalars(self._held_until, parameters))

    def begin(self, connection: sa.Connection, id: str, attempt: int, lease_until: DateTime) -> bool:
        """pending → inProgress of a row that is held at this attempt, and was not handed over since.

        The commit waits for no disk: that the row may have begun is on it since it was held.
        """
        parameters = {"row": id, "at_attempt": attempt, "then": lease_until}
        found: Any = self._quickly(connection, self._begin_relaxed, parameters).one()
        return int(found[0]) == 1

    def succeed_and_begin(
        self,
        connection: sa.Connection,
        ended: str,
        ended_attempt: int,
        now: DateTime,
        id: str,
        attempt: int,
        lease_until: DateTime,
    ) -> tuple[bool, bool]:
        """`succeed_running` of one row and `begin` of another, each by its own guard. The commit waits for no disk."""
        parameters = {"ended_row": ended, "ended_attempt": ended_attempt, "now": now}
        parameters |= {"row": id, "at_attempt": attempt, "then": lease_until}
        found: Any = self._quickly(connection, self._succeed_and_begin, parameters).one()
        return int(found[0]) == 1, int(found[1]) == 1

    def release(self, connection: sa.Connection, ids: Sequence[str], attempt: int, due: DateTime) -> int:
        """pending → pending, not held any more: who held these rows at this attempt knows that they have not begun. How
        many were held still."""
        parameters = {"rows": list(ids), "at_attempt": attempt, "then": due}
        return connection.execute(self._release, parameters).rowcount

    def succeed_pending(self, connection: sa.Connection, id: str, attempt: int, now: DateTime) -> bool:
        """pending → success: a mutation's last statement, in its own transaction."""
        return _one(self._quickly(connection, self._succeed_pending, {"row": id, "at_attempt": attempt, "now": now}))

    def succeed_together(self, connection: sa.Connection, rows: Sequence[Pending], now: DateTime) -> set[str]:
        """pending → success for each of these, which have one attempt: the last statement of a transaction that they
        share. Gives back the ids of those that were pending still."""
        (attempt,) = {row.attempt for row in rows}
        parameters = {"rows": [row.id for row in rows], "at_attempt": attempt, "now": now}
        return set(connection.scalars(self._succeed_together, parameters))

    def fail_pending(
        self, connection: sa.Connection, id: str, attempt: int, now: DateTime, failure: Mapping[str, Any]
    ) -> bool:
        """pending → failed: a mutation that raised, or a row that cannot be run."""
        parameters = {"row": id, "at_attempt": attempt, "now": now, "failure": dict(failure)}
        return _one(self._quickly(connection, self._fail_pending, parameters))

    def succeed_running(self, connection: sa.Connection, id: str, attempt: int, now: DateTime) -> bool:
        """inProgress → success. False when it was canceled meanwhile: its result is ignored."""
        return _one(self._quickly(connection, self._succeed_running, {"row": id, "at_attempt": attempt, "now": now}))

    def fail_running(
        self, connection: sa.Connection, id: str, attempt: int, now: DateTime, failure: Mapping[str, Any]
    ) -> bool:
        """inProgress → failed. False when it was canceled meanwhile."""
        parameters = {"row": id, "at_attempt": attempt, "now": now, "failure": dict(failure)}
        return _one(self._quickly(connection, self._fail_running, parameters))

    def postpone(self, connection: sa.Connection, id: str, attempt: int, until: DateTime) -> bool:
        """pending → pending at `until`, with a new attempt: the fault was the system's, not the function's."""
        return _one(self._quickly(connection, self._postpone, {"row": id, "at_attempt": attempt, "then": until}))

    def retry(
        self,
        connection: sa.Connection,
        id: str,
        attempt: int,
        call: EncodedCall,
        due: DateTime,
        delivered_until: DateTime | None,
    ) -> Delivery | None:
        """inProgress → pending at `due`, with a new attempt: a plain Celery task's own retry, with what it now carries.

        Gives back what to publish, or None when the row is not running at this attempt any more.
        """
        parameters = {
            "row": id,
            "at_attempt": attempt,
            "then": delivered_until or due,
            "delivered": int(delivered_until is not None),
            "call_args": call.args,
            "call_options": dict(call.options),
        }
        if not _one(connection.execute(self._retry, parameters)):
            return None
        return Delivery(
            ScheduledFunctionId(id), call.name, call.kind, call.args, due, attempt + 1, call.options, parent_id=None
        )

    # -- the reconciler

    def lose(self, connection: sa.Connection, id: str, attempt: int, until: DateTime) -> int | None:
        """pending → pending at `until`: a worker died while it ran this mutation. Gives back how many did by now, or
        None when the row is not pending at this attempt any more."""
        return self._again(connection, self._lose, id, attempt, until)

    def requeue(
        self, connection: sa.Connection, id: str, attempt: int, until: DateTime, *, lost: bool = True
    ) -> int | None:
        """inProgress → pending at `until`: a task whose message Celery delivers again, since its worker died or (not
        `lost`) since it gave the message back. Gives back how many workers died of it by now, or None when the row is
        not running at this attempt any more."""
        return self._again(connection, self._requeue, id, attempt, until, lost)

    def _again(
        self, connection: sa.Connection, statement: sa.Update, id: str, attempt: int, until: DateTime, lost: bool = True
    ) -> int | None:
        if not _one(
            connection.execute(statement, {"row": id, "at_attempt": attempt, "then": until, "lost": int(lost)})
        ):
            return None
        losses: int = connection.execute(sa.select(self._c.losses).where(self._c.id == id)).scalar_one()
        return losses

    def renew(self, connection: sa.Connection, ids: Sequence[str], lease_until: DateTime) -> None:
        """inProgress stays inProgress: the worker that runs these rows is alive."""
        connection.execute(self._renew, {"rows": list(ids), "then": lease_until})

    def any_dead(self, connection: sa.Connection, now: DateTime) -> bool:
        """Whether `bury` would find something."""
        return connection.execute(self._any_dead, {"now": now}).first() is not None

    def dead(self, connection: sa.Connection, now: DateTime, batch: int) -> list[Dead]:
        """Up to `batch` inProgress rows whose lease ran out, locked: nobody renews it any more."""
        return [Dead(*row) for row in connection.execute(self._pick_dead, {"now": now, "batch": batch})]

    def bury(self, connection: sa.Connection, ids: Sequence[str], now: DateTime, failure: Mapping[str, Any]) -> int:
        """inProgress → failed, for rows that `dead` gave in this transaction; how many did."""
        if not ids:
            return 0
        parameters = {"rows": list(ids), "now": now, "failure": dict(failure)}
        return connection.execute(self._bury, parameters).rowcount

    def prune(
        self, connection: sa.Connection, *, after: str, now: DateTime, oldest: DateTime, batch: int
    ) -> tuple[int, str | None]:
        """Delete terminal rows that completed before `oldest`, looking at `batch` rows from id `after` on.

        Ids grow with time, so a walk over the primary key meets the old rows first and needs no index of its own. Ids
        that Celery made, of captured calls, lie beyond all of ours for the most part: the walk goes on there. Gives
        back how many rows went, and the id to go on from, or None at the end.
        """
        c = self._c
        ours, others = str(first_id_at(oldest)), str(first_id_at(now + _AHEAD))
        within = c.id < ours
        if after >= ours or after >= others:
            after, within = max(after, others), c.id > others
        ids = connection.scalars(sa.select(c.id).where(c.id > after, within).order_by(c.id).limit(batch)).all()
        end = None if after >= others else others
        if not ids:
            return 0, end
        gone = connection.execute(
            sa.delete(self.table).where(
                c.id > after, c.id <= ids[-1], c.completed_time < oldest, sa.or_(*self._finished)
            )
        ).rowcount
        return gone, ids[-1] if len(ids) == batch else end


class _AnyId(TypeDecorator[str]):
    """What somebody says is an id, a message for example: a text that no database can hold is that of no row."""

    impl = sa.String
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: sa.Dialect) -> str:
        """The empty text, which is no row's id, in its place."""
        if value is not None and value.isascii() and "\0" not in value:  # as ours are
            return value
        if value is None or "\0" in value or any("\ud800" <= char <= "\udfff" for char in value):
            return ""
        return value


class _AnyAttempt(TypeDecorator[int]):
    """What somebody says is an attempt: a number that the column cannot hold is that of no row."""

    impl = sa.Integer
    cache_ok = True

    def process_bind_param(self, value: int | None, dialect: sa.Dialect) -> int:
        """-1, which no row ever has, in its place."""
        return value if value is not None and 0 <= value < 2**31 else -1


def _counts(*changes: sa.CTE) -> sa.Select[Any]:
    counts = [sa.select(sa.func.count()).select_from(each).scalar_subquery() for each in changes]
    return sa.select(counts[0]).add_columns(*counts[1:])


def _literal(kind: StateKind) -> sa.ColumnElement[str]:
    # In the SQL's text, never bound: under a generic plan PostgreSQL could not match a bound state to a partial index.
    return sa.literal_column(f"'{kind.value}'", sa.String)


def _is(column: sa.ColumnElement[str], kind: StateKind) -> sa.ColumnElement[bool]:
    return column == _literal(kind)


def _one(result: sa.CursorResult[Any]) -> bool:
    if result.rowcount > 1:
        raise AssertionError(f"a transition by id changed {result.rowcount} rows")
    return result.rowcount == 1
