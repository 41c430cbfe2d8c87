"""Reading rows, for whoever asks, without a lock."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from confect_celery.store.dialects.base import Dialect
from confect_celery.store.query.system import SystemTable
from confect_celery.store.row import Delivery, ScheduledFunction, StateKind
from confect_celery.store.statements.base import Base
from confect_celery.store.statements.terms import state_is
from confect_celery.timing import DateTime

__all__ = ["Reading"]


class Reading(Base):
    """One row, what state it is in, which of many are live, and what comes next."""

    def __init__(self, table: sa.Table, dialect: Dialect) -> None:
        super().__init__(table, dialect)
        self.system = SystemTable(table)
        c = self._c
        self._get = sa.select(table).where(self._row)
        still = sa.and_(self._picked, state_is(c.state, StateKind.PENDING))
        self._count_pending = sa.select(sa.func.count()).select_from(table).where(still)
        self._state = sa.select(c.state).where(self._row)
        self._live = sa.select(c.id).where(
            self._picked,
            sa.or_(state_is(c.state, StateKind.PENDING), state_is(c.state, StateKind.IN_PROGRESS)),
        )

    def get(self, connection: sa.Connection, id: str) -> ScheduledFunction | None:
        """The row, whatever its state."""
        row = connection.execute(self._get, {"row": id}).one_or_none()
        return None if row is None else self.system.to_scheduled_function(row)

    def count_pending(self, connection: sa.Connection, ids: Sequence[str]) -> int:
        """How many of these rows are pending."""
        count: int = connection.execute(self._count_pending, {"rows": list(ids)}).scalar_one()
        return count

    def state(self, connection: sa.Connection, id: str) -> StateKind | None:
        """The row's state."""
        found = self._quickly(connection, self._state, {"row": id}).row
        return None if found is None else StateKind(found[0])

    def live(self, connection: sa.Connection, ids: Sequence[str]) -> list[str]:
        """Which of these are ids of rows that are pending or inProgress."""
        return list(connection.scalars(self._live, {"rows": list(ids)}))

    def upcoming(
        self, connection: sa.Connection, after: tuple[DateTime, str] | None, batch: int
    ) -> list[tuple[DateTime, Delivery]]:
        """Up to `batch` pending rows, next first, each with its `next_at`; go on after the last's `(next_at, id)`."""
        c = self._c
        chosen = sa.select(c.next_at, c.id, c.name, c.kind, c.args, c.scheduled_time, c.attempt, c.options, c.parent_id)
        chosen = chosen.where(c.next_at.is_not(None), state_is(c.state, StateKind.PENDING))
        if after is not None:
            chosen = chosen.where(c.next_at >= after[0], sa.or_(c.next_at > after[0], c.id > after[1]))
        rows = connection.execute(chosen.order_by(c.next_at, c.id).limit(batch))
        return [(next_at, Delivery(*row)) for next_at, *row in rows]
