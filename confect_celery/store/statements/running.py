"""What the gate does with a row that it runs: it claims it, and records how it ended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from confect_celery.errors import Unreadable
from confect_celery.store.dialects.base import Dialect
from confect_celery.store.row import Delivery, EncodedCall, Pending, ScheduledFunctionId
from confect_celery.store.statements.loading import Loading
from confect_celery.store.statements.terms import AnyAttempt, AnyId, checked, counts, one
from confect_celery.timing import DateTime

__all__ = ["Running"]


class Running(Loading):
    """The transitions of a run, each at the attempt that its runner has."""

    def __init__(self, table: sa.Table, dialect: Dialect) -> None:
        super().__init__(table, dialect)
        c, done = self._c, self._done
        mine = sa.and_(self._row, self._attempt)
        together = sa.and_(self._picked, self._attempt)
        failed = {**done, "error": self._failure}
        begun = {"next_at": self._then, "attempt": c.attempt + 1}
        self._start = self._transition("start", mine, begun)
        due = sa.and_(mine, c.name == sa.bindparam("called", type_=AnyId()), c.scheduled_time <= self._now)
        was = [sa.type_coerce(c.attempt - 1, c.attempt.type) if each is c.attempt else each for each in self._pending]
        self._start_due = self._transition("start", due, begun).returning(*was)
        self._succeed_pending = self._transition("succeed_pending", mine, done)
        self._succeed_checked = checked(self._succeed_pending.returning(c.id).cte("ended"), sa.literal_column("1"))
        self._succeed_all = self._transition("succeed_pending", together, done)
        self._succeed_together = self._succeed_all.returning(c.id)
        many = sa.bindparam("many", type_=sa.Integer)
        self._all_checked = checked(self._succeed_together.cte("ended"), many)
        self._fail_pending = self._transition("fail_pending", mine, failed)
        self._succeed_running = self._transition("succeed_running", mine, done)
        self._fail_running = self._transition("fail_running", mine, failed)
        self._postpone = self._transition("postpone", mine, self._anew)
        self._retry = self._transition(
            "retry",
            mine,
            {
                **self._anew,
                "deliveries": sa.bindparam("delivered"),
                "args": sa.bindparam("call_args", type_=c.args.type),
                "options": sa.bindparam("call_options", type_=c.options.type),
            },
        )
        ended = sa.and_(
            c.id == sa.bindparam("ended_row", type_=AnyId()),
            c.attempt == sa.bindparam("ended_attempt", type_=AnyAttempt()),
        )
        self._ended = self._transition("succeed_running", ended, done).returning(c.id).cte("ended")
        self._succeed_and_start = counts(self._ended, self._start.returning(c.id).cte("started"))

    def warm_up(self, connection: sa.Connection) -> None:
        """Execute what a gate executes, for no row: the texts are compiled once a process, some 10 ms each."""
        nobody = {"row": "", "at_attempt": -1}
        never: dict[str, Any] = {"now": DateTime.from_epoch_millis(0), "then": DateTime.from_epoch_millis(0)}
        self.load_many(connection, [""])
        self._quickly(connection, self._load_locked, {**nobody, "lock": 0})
        for locking in (self._lock, self._lock_relaxed):
            self._quickly(connection, locking, {**nobody, "lock": 0})
        if self._dialect.changes_in_ctes:  # compiled only: of no row they are an error
            self._prepared(self._succeed_checked).numbered(connection.dialect, {**nobody, **never})
            self._prepared(self._all_checked).numbered(connection.dialect, {"rows": [""], **nobody, **never, "many": 1})
        if self._dialect.shares:
            for locking in (self._lock_together, self._lock_together_relaxed):
                self._quickly(connection, locking, {"rows": [""], "locks": [0], "at_attempt": -1})
            none = {"rows": [""], "at_attempt": -1, "now": never["now"]}
            self._quickly(connection, self._succeed_all, none)
            connection.execute(self._succeed_together, none)
        for statement in (self._succeed_pending, self._start, self._succeed_running):
            self._quickly(connection, statement, {**nobody, **never})
        self.start_due(connection, "", -1, "", never["now"], never["then"])

    def start(self, connection: sa.Connection, id: str, attempt: int, lease_until: DateTime) -> bool:
        """pending → inProgress. The attempt grows by one, and the runner owns the row until `lease_until`."""
        return one(self._quickly(connection, self._start, {"row": id, "at_attempt": attempt, "then": lease_until}))

    def start_due(
        self, connection: sa.Connection, id: str, attempt: int, name: str, now: DateTime, lease_until: DateTime
    ) -> Pending | None:
        """`load` and `start` in one statement, of a row of this name whose time has come. Gives back what it was; None
        where it started nothing, or where the dialect cannot tell. Raises Unreadable where it started what cannot be
        read."""
        if not self._dialect.update_returning:
            return None
        parameters = {"row": id, "at_attempt": attempt, "called": name, "now": now, "then": lease_until}
        try:
            answer = self._quickly(connection, self._start_due, parameters)
            return self._pending_of(connection, self._start_due, answer)
        except ValueError as error:
            raise Unreadable(id, str(error)) from error

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
        (found,) = self._quickly(connection, self._succeed_and_start, parameters).rows
        done, started = found
        return done == 1, started == 1

    def succeed_pending(
        self, connection: sa.Connection, id: str, attempt: int, now: DateTime, *, may_commit: bool = False
    ) -> bool:
        """pending → success: a mutation's last statement, in its own transaction, which it may commit if it is told so
        and changes the row."""
        parameters = {"row": id, "at_attempt": attempt, "now": now}
        change = self._prepared(self._succeed_pending)
        if may_commit:
            return self._dialect.execute_last(connection, change, self._prepared(self._succeed_checked), parameters)
        return one(self._dialect.execute(connection, change, parameters))

    def succeed_together(
        self, connection: sa.Connection, rows: Sequence[Pending], now: DateTime, *, may_commit: bool = False
    ) -> set[str]:
        """pending → success for each of these, which have one attempt: the last statement of a transaction that they
        share. Gives back the ids of those that were pending still.

        Where nobody can have changed any of them it may commit. If one was not pending all the same, it gives back
        none, and the transaction is to be rolled back.
        """
        (attempt,) = {row.attempt for row in rows}
        ids = [row.id for row in rows]
        parameters = {"rows": ids, "at_attempt": attempt, "now": now}
        if may_commit:
            change, all_checked = self._prepared(self._succeed_all), self._prepared(self._all_checked)
            done = self._dialect.execute_last(connection, change, all_checked, parameters, many=len(rows))
            return set(ids) if done else set()
        return set(connection.scalars(self._succeed_together, parameters))

    def fail_pending(
        self, connection: sa.Connection, id: str, attempt: int, now: DateTime, failure: Mapping[str, Any]
    ) -> bool:
        """pending → failed: a mutation that raised, or a row that cannot be run."""
        parameters = {"row": id, "at_attempt": attempt, "now": now, "failure": dict(failure)}
        return one(self._quickly(connection, self._fail_pending, parameters))

    def succeed_running(self, connection: sa.Connection, id: str, attempt: int, now: DateTime) -> bool:
        """inProgress → success. False when it was canceled meanwhile: its result is ignored."""
        return one(self._quickly(connection, self._succeed_running, {"row": id, "at_attempt": attempt, "now": now}))

    def fail_running(
        self, connection: sa.Connection, id: str, attempt: int, now: DateTime, failure: Mapping[str, Any]
    ) -> bool:
        """inProgress → failed. False when it was canceled meanwhile."""
        parameters = {"row": id, "at_attempt": attempt, "now": now, "failure": dict(failure)}
        return one(self._quickly(connection, self._fail_running, parameters))

    def postpone(self, connection: sa.Connection, id: str, attempt: int, until: DateTime) -> bool:
        """pending → pending at `until`, with a new attempt: the fault was the system's, not the function's."""
        return one(self._quickly(connection, self._postpone, {"row": id, "at_attempt": attempt, "then": until}))

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
        if not one(connection.execute(self._retry, parameters)):
            return None
        return Delivery(
            ScheduledFunctionId(id), call.name, call.kind, call.args, due, attempt + 1, call.options, parent_id=None
        )
