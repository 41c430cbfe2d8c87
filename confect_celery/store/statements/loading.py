"""What the gate looks at before it runs a row: it reads it and locks it, if it is pending still."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from confect_celery.store.dialects.base import Dialect, lock_number
from confect_celery.store.prepared import Answer
from confect_celery.store.row import Pending, StateKind
from confect_celery.store.statements.base import Base
from confect_celery.store.statements.terms import AnyId, state_is

__all__ = ["Loading"]


class Loading(Base):
    """Rows that are pending, at the attempt that a message names; none of these changes anything."""

    def __init__(self, table: sa.Table, dialect: Dialect) -> None:
        super().__init__(table, dialect)
        c = self._c
        self._pending = [c.id, c.name, c.kind, c.args, c.attempt, c.scheduled_time, c.options, c.creation_time]
        self._pending.append(c.parent_id)
        still = state_is(c.state, StateKind.PENDING)
        self._load = sa.select(*self._pending).where(self._row, self._attempt, still)
        self._load_many = sa.select(*self._pending).where(self._picked, still)
        self._load_locked = self._load.add_columns(dialect.lock)
        self._lock = sa.select(dialect.lock).where(self._row, self._attempt, still)
        self._lock_relaxed = self._lock if dialect.relaxed is None else self._lock.add_columns(dialect.relaxed)
        each = dialect.lock_each(sa.select(c.id).where(self._attempt, still), c.id, AnyId())
        self._lock_together = each
        self._lock_together_relaxed = each if dialect.relaxed is None else each.add_columns(dialect.relaxed)

    def load(self, connection: sa.Connection, id: str, attempt: int) -> Pending | None:
        """The row, if it is pending at this attempt."""
        answer = self._quickly(connection, self._load, {"row": id, "at_attempt": attempt})
        return self._pending_of(connection, self._load, answer)

    def _pending_of(self, connection: sa.Connection, statement: sa.ClauseElement, answer: Answer) -> Pending | None:
        """The one row, if there is one; None also where a last column more, whether its lock was taken, says no."""
        if answer.row is None:
            return None
        pending = self._prepared(statement).typed(connection.dialect, answer.row)
        if len(pending) > len(self._pending) and not pending.pop():
            return None
        return Pending(*pending)

    def load_many(self, connection: sa.Connection, ids: Sequence[str]) -> dict[str, Pending]:
        """Those of the rows that are pending and can be read, by their ids."""
        statement = self._prepared(self._load_many)
        try:
            found = self._dialect.execute(connection, statement, {"rows": list(ids)}).rows
            rows = [Pending(*statement.typed(connection.dialect, row)) for row in found]
        except ValueError:  # it does not say which
            half = len(ids) // 2
            return self.load_many(connection, ids[:half]) | self.load_many(connection, ids[half:]) if half else {}
        return {row.id: row for row in rows}

    def load_locked(self, connection: sa.Connection, id: str, attempt: int) -> Pending | None:
        """As `load`, its advisory lock taken for the rest of the transaction; None also where somebody else has it.

        What the lock's last owner has committed meanwhile is not seen: the transition at the end will tell.

        It is the first statement of its transaction.
        """
        parameters = {"row": id, "at_attempt": attempt, "lock": lock_number(id)}
        answer = self._dialect.execute_first(connection, self._prepared(self._load_locked), parameters)
        if answer.row is not None:
            self._dialect.note_lock(connection)
        return self._pending_of(connection, self._load_locked, answer)

    def lock(
        self, connection: sa.Connection, id: str, attempt: int, *, relaxed: bool = False, savepoint: str | None = None
    ) -> bool:
        """Lock a row that was read before, as `load_locked` does: whether it is pending at this attempt still, so that
        what was read of it is true, and nobody else has it.

        `relaxed`: the transaction's commit waits for no disk, on a database that can do so. `savepoint`: one of this
        name is begun before; without, it is the first statement of its transaction.
        """
        statement = self._prepared(self._lock_relaxed if relaxed else self._lock)
        parameters = {"row": id, "at_attempt": attempt, "lock": lock_number(id)}
        row: Any = (
            self._dialect.execute_first(connection, statement, parameters).row
            if savepoint is None
            else self._dialect.in_savepoint(connection, savepoint, statement, parameters)
        )
        if row is None:
            return False
        self._dialect.note_lock(connection)
        return bool(row[0])

    def lock_together(self, connection: sa.Connection, rows: Sequence[Pending], *, relaxed: bool = False) -> set[str]:
        """Lock these, of one attempt, that were read before; where the dialect `shares`. Gives back the ids of those
        that are pending at it still, that nobody else has, and that nobody else will change before the transaction
        ends.

        It is the first statement of its transaction, in which from then on none may take long.
        """
        (attempt,) = {row.attempt for row in rows}
        ids = [row.id for row in rows]
        parameters = {"rows": ids, "locks": [lock_number(id) for id in ids], "at_attempt": attempt}
        statement = self._prepared(self._lock_together_relaxed if relaxed else self._lock_together)
        answer = self._dialect.execute_first(connection, statement, parameters, bounded=True)
        return {id for id, locked, *_ in answer.rows if locked}
