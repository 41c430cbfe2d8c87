"""Every statement on `_scheduled_functions`: one method a transition, each guarded by the states it may leave.

A guarded UPDATE answers by its row count: 1, the transition happened; 0, somebody else was first, or the row is not
what the caller took it for; more is a bug and raises. Times come in as arguments; nothing here reads a clock.

Each module is the room of one actor and makes the statements that it executes.
"""

from __future__ import annotations

import sqlalchemy as sa

from confect_celery.store.dialects.base import Dialect
from confect_celery.store.statements.dispatching import Dispatching
from confect_celery.store.statements.holding import HELD_FOR, Holding
from confect_celery.store.statements.reading import Reading
from confect_celery.store.statements.reconciling import Dead, Reconciling
from confect_celery.store.statements.running import Running
from confect_celery.store.statements.scheduling import Scheduling

__all__ = ["HELD_FOR", "Dead", "Statements"]


class Statements(Reading, Scheduling, Dispatching, Holding, Running, Reconciling):
    """The statements, built once for one table; each method runs one of them on the caller's connection."""

    def __init__(self, table: sa.Table, dialect: Dialect) -> None:
        super().__init__(table, dialect)  # here every statement stands: the property test wraps this to change one
