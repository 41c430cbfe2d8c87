"""What the reconciler does: it renews leases, decides what a lost worker's rows become, and clears away old ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa

from confect_celery.store.dialects.base import Dialect
from confect_celery.store.ids import first_id_at
from confect_celery.store.row import RowKind, ScheduledFunctionId, StateKind
from confect_celery.store.statements.base import Base
from confect_celery.store.statements.terms import literal, one, state_is
from confect_celery.timing import DateTime, Duration

__all__ = ["Dead", "Reconciling"]

_AHEAD: Final = Duration.days(1)
"""No clock is so far ahead that ids of ours lie beyond."""


@dataclass(frozen=True, slots=True)
class Dead:
    """A running row that nobody answers for."""

    id: ScheduledFunctionId
    name: str
    kind: RowKind
    attempt: int


class Reconciling(Base):
    """What becomes of rows whose runner is gone, and of those that ended long ago."""

    def __init__(self, table: sa.Table, dialect: Dialect) -> None:
        super().__init__(table, dialect)
        c, mine = self._c, sa.and_(self._row, self._attempt)
        lost = {**self._anew, "losses": c.losses + sa.bindparam("lost", type_=sa.Integer)}
        self._lose = self._transition("postpone", mine, lost)
        self._requeue = self._transition("retry", mine, lost)
        running = state_is(c.state, StateKind.IN_PROGRESS)
        dead = sa.and_(c.next_at <= self._now, running)
        # Without the order a generic plan may take "the first of very many" for cheap, and read the whole table.
        self._any_dead: sa.Select[Any] = sa.select(c.next_at).where(dead).order_by(c.next_at, c.id).limit(1)
        self._pick_dead = (
            sa.select(c.id, c.name, c.kind, c.attempt)
            .where(dead)
            .order_by(c.next_at, c.id)
            .limit(self._batch)
            .with_for_update(skip_locked=True)
        )
        self._bury = self._transition("fail_running", self._picked, {**self._done, "error": self._failure})
        runs = state_is(self._state_beside_id, StateKind.IN_PROGRESS)
        self._renew = sa.update(table).where(self._picked, runs).values(next_at=self._then)
        self._finished = [c.state == literal(kind) for kind in StateKind if kind.terminal]

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
        if not one(connection.execute(statement, {"row": id, "at_attempt": attempt, "then": until, "lost": int(lost)})):
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
        page = sa.select(c.id).where(c.id > after, within).order_by(c.id).limit(batch).subquery()
        count, last = connection.execute(sa.select(sa.func.count(), sa.func.max(page.c.id)).select_from(page)).one()
        end = None if after >= others else others
        if last is None:
            return 0, end
        gone = connection.execute(
            sa.delete(self.table).where(c.id > after, c.id <= last, c.completed_time < oldest, sa.or_(*self._finished))
        ).rowcount
        return gone, last if count == batch else end
