"""Rows that a child of a worker holds for itself, with others, so that each begins without a wait for the disk."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import sqlalchemy as sa

from confect_celery.store.dialects.base import Dialect
from confect_celery.store.row import Pending, StateKind
from confect_celery.store.statements.running import Running
from confect_celery.store.statements.terms import counts, state_is
from confect_celery.timing import DateTime, Duration

__all__ = ["HELD", "HELD_FOR", "IN_DOUBT", "Holding"]

HELD: Final = -1
"""The `deliveries` of a row that a child of a worker holds for itself, with others, and has not begun."""

IN_DOUBT: Final = -2
"""The same, where the database has failed since: what began may be forgotten. Who holds it has HELD_FOR to tell."""

HELD_FOR: Final = Duration.seconds(10)
"""How long it may hold a row."""


class Holding(Running):
    """Rows are held, begun one after the other, and given back where they were not begun."""

    def __init__(self, table: sa.Table, dialect: Dialect) -> None:
        super().__init__(table, dialect)
        c, then = self._c, self._then
        held = c.deliveries < 0
        unbegun = sa.and_(self._picked, self._attempt, held)
        self._hold = self._transition(
            "hold",
            sa.and_(self._picked, self._attempt),
            {"next_at": then, "attempt": c.attempt + 1, "deliveries": HELD},
        ).returning(c.id)
        self._held_until = sa.select(c.id).where(unbegun, state_is(c.state, StateKind.PENDING), c.next_at == then)
        self._release = self._transition("release", unbegun, {"next_at": then, "deliveries": 0})
        begun = {"next_at": then, "attempt": c.attempt + 1, "deliveries": 1}
        # Once it was handed over to others, a begin that the database may forget could be followed by another.
        begin = self._transition("start", sa.and_(self._row, self._attempt, held), begun)
        self._succeed_and_begin = counts(self._ended, begin.returning(c.id).cte("started"))
        self._begin_relaxed = counts(begin.returning(c.id).cte("started"))
        if dialect.relaxed is not None:
            self._succeed_and_begin = self._succeed_and_begin.add_columns(dialect.relaxed)
            self._begin_relaxed = self._begin_relaxed.add_columns(dialect.relaxed)

    def warm_up(self, connection: sa.Connection) -> None:
        """As `Running` does it, and what a batch executes."""
        super().warm_up(connection)
        never = DateTime.from_epoch_millis(0)
        self.succeed_and_start(connection, "", -1, never, "", -1, never)
        if self._dialect.holds:
            self._quickly(connection, self._hold, {"rows": [""], "at_attempt": -1, "then": never})
            self.begin(connection, "", -1, never)
            self.succeed_and_begin(connection, "", -1, never, "", -1, never)

    def hold(self, connection: sa.Connection, rows: Sequence[Pending], until: DateTime) -> set[str]:
        """pending → pending, for these alone who asks: rows of one attempt, which grows. Others may have them again
        `until`. Gives back the ids of those that were pending still."""
        (attempt,) = {row.attempt for row in rows}
        parameters = {"rows": [row.id for row in rows], "at_attempt": attempt, "then": until}
        return {id for (id,) in self._quickly(connection, self._hold, parameters).rows}

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
        (found,) = self._quickly(connection, self._begin_relaxed, parameters).rows
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
        (found,) = self._quickly(connection, self._succeed_and_begin, parameters).rows
        return int(found[0]) == 1, int(found[1]) == 1

    def release(self, connection: sa.Connection, ids: Sequence[str], attempt: int, due: DateTime) -> int:
        """pending → pending, not held any more: who held these rows at this attempt knows that they have not begun. How
        many were held still."""
        parameters = {"rows": list(ids), "at_attempt": attempt, "then": due}
        return connection.execute(self._release, parameters).rowcount
