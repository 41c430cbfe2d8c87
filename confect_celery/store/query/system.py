"""The system table as the face shows it: its field names, and its rows as `ScheduledFunction`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from confect_celery.store.query.fields import Field, Resolver
from confect_celery.store.query.json_place import Path
from confect_celery.store.row import ErrorInfo, ScheduledFunction, ScheduledFunctionId, State, StateKind

__all__ = ["SYSTEM_NAME", "SystemResolver", "SystemTable"]

SYSTEM_NAME = "_scheduled_functions"


class SystemResolver(Resolver):
    """The fields of a `ScheduledFunction`: `state.kind` is the column `state`, `state.error` the column `error`."""

    def __init__(self, table: sa.Table) -> None:
        super().__init__(SYSTEM_NAME, table)

    def renamed(self, parts: Path) -> Path:
        """Where the field of that path is kept."""
        if parts[:2] == ("state", "kind"):
            return ("state", *parts[2:])
        if parts[:2] == ("state", "error"):
            return parts[1:]
        return parts

    def implied(self, field: Field, values: Sequence[object]) -> list[sa.Column[Any]]:
        """Pending and running rows are those of the partial index: terminal ones need not be looked at."""
        live = (StateKind.PENDING, StateKind.IN_PROGRESS)
        all_live = field.column is self.table.c.state and all(value in live for value in values)
        return [self.table.c.next_at] if all_live else []


class SystemTable:
    """`_scheduled_functions`, whatever its physical name."""

    def __init__(self, table: sa.Table) -> None:
        self.table = table

    def to_scheduled_function(self, row: sa.Row[Any]) -> ScheduledFunction:
        """A row of all the table's columns as a value. JSON that is not of our shape raises nothing."""
        kind = StateKind(row.state)
        error = ErrorInfo.from_json(row.error) if kind is StateKind.FAILED else None
        return ScheduledFunction(
            id=ScheduledFunctionId(row.id),
            name=row.name,
            kind=row.kind,
            args=row.args,
            scheduled_time=row.scheduled_time,
            creation_time=row.creation_time,
            completed_time=row.completed_time,
            state=State(kind, error),
            attempt=row.attempt,
            next_at=row.next_at,
            parent_id=row.parent_id,
            options=row.options if isinstance(row.options, Mapping) else {},
            deliveries=row.deliveries,
            losses=row.losses,
        )
