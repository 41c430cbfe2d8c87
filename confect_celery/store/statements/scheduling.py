"""What a caller does: schedule, cancel, reschedule."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import sqlalchemy as sa

from confect_celery.store.dialects.base import Dialect
from confect_celery.store.inserts import Insert, insert_pending, lots, values_of, values_of_pending
from confect_celery.store.row import Delivery, NewRow, StateKind
from confect_celery.store.statements.base import Base
from confect_celery.store.statements.terms import one
from confect_celery.timing import DateTime

__all__ = ["Scheduling"]


class Scheduling(Base):
    """The transitions that begin outside of any run, in the caller's own transaction."""

    def __init__(self, table: sa.Table, dialect: Dialect) -> None:
        super().__init__(table, dialect)
        c = self._c
        self._insert = Insert(table)
        self._insert_pending = insert_pending(table)
        self._cancel = self._transition("cancel", self._row, self._done)
        self._reschedule = self._transition(
            "reschedule",
            self._row,
            {
                "scheduled_time": sa.bindparam("scheduled", type_=c.next_at.type),
                "next_at": self._then,
                "attempt": c.attempt + 1,
                "deliveries": sa.bindparam("delivered"),
            },
        )

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
        if len(rows) == 1 and not delivered_until and born is StateKind.PENDING:
            self._dialect.execute(connection, self._insert_pending, values_of_pending(rows[0]))
        elif len(rows) == 1:
            values = values_of(rows[0], delivered_until.get(rows[0].id), born)
            self._dialect.execute(connection, self._insert, values)
        else:
            blocks = lots(rows, delivered_until, born, self._dialect.block)
            self._dialect.insert_many(connection, self._insert, blocks)

    def cancel(self, connection: sa.Connection, id: str, now: DateTime) -> bool:
        """pending | inProgress → canceled."""
        return one(self._quickly(connection, self._cancel, {"row": id, "now": now}))

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
        if not one(connection.execute(self._reschedule, parameters)):
            return None
        row = connection.execute(sa.select(*self._delivery).where(self._c.id == id)).one()
        return dataclasses.replace(Delivery(*row), due=due, deliveries=0)
