"""What every room of the statements stands on: the table, its dialect, and the parts that many texts have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from confect_celery.store.dialects.base import Dialect
from confect_celery.store.prepared import Answer, Prepared
from confect_celery.store.row import TRANSITIONS, Transition
from confect_celery.store.statements.terms import AnyAttempt, AnyId, literal, state_is

__all__ = ["Base"]


class Base:
    """Makes the parts; each room makes its own statements of them, once."""

    def __init__(self, table: sa.Table, dialect: Dialect) -> None:
        self.table = table
        self._dialect = dialect
        self._ready: dict[sa.ClauseElement, Prepared] = {}
        c = self._c = table.c
        self._row = c.id == sa.bindparam("row", type_=AnyId())
        self._attempt = c.attempt == sa.bindparam("at_attempt", type_=AnyAttempt())
        self._state_beside_id = dialect.beside_id(c.state)
        self._picked = dialect.among(c.id, "rows", AnyId())
        self._now = sa.bindparam("now", type_=c.next_at.type)
        self._then = sa.bindparam("then", type_=c.next_at.type)
        self._failure = sa.bindparam("failure", type_=c.error.type)
        self._batch = sa.bindparam("batch", type_=sa.Integer)
        self._done: dict[str, Any] = {"completed_time": self._now, "next_at": None}
        self._anew: dict[str, Any] = {"next_at": self._then, "attempt": c.attempt + 1, "deliveries": 0}
        self._delivery = [c.id, c.name, c.kind, c.args, c.next_at, c.attempt, c.options, c.parent_id, c.deliveries]

    def _prepared(self, statement: sa.ClauseElement) -> Prepared:
        found = self._ready.get(statement)
        if found is None:
            found = self._ready[statement] = Prepared(statement)
        return found

    def _quickly(self, connection: sa.Connection, statement: sa.ClauseElement, parameters: Mapping[str, Any]) -> Answer:
        # For what is executed for each row, where nobody minds which types the driver gives.
        return self._dialect.execute(connection, self._prepared(statement), parameters)

    def _transition(self, name: str, guard: sa.ColumnElement[bool], values: Mapping[str, Any]) -> sa.Update:
        # The guard is by id, always.
        transition: Transition = TRANSITIONS[name]
        leaves = sa.or_(*(state_is(self._state_beside_id, kind) for kind in transition.leaves))
        return sa.update(self.table).where(guard, leaves).values(state=literal(transition.enters), **values)
