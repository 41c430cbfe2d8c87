"""The system table as the face shows it: its field names, and its rows as `ScheduledFunction`."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from confect_celery.store.row import ErrorInfo, ScheduledFunction, ScheduledFunctionId, State, StateKind

__all__ = ["SYSTEM_NAME", "SystemTable"]

SYSTEM_NAME = "_scheduled_functions"


class SystemTable:
    """`_scheduled_functions`, whatever its physical name."""

    def __init__(self, table: sa.Table) -> None:
        self.table = table

    def path(self, parts: tuple[str, ...]) -> tuple[str, ...]:
        """Where a field of a `ScheduledFunction` is kept: `state.kind` is the column `state`, `state.error` `error`."""
        if parts[:2] == ("state", "kind"):
            return ("state", *parts[2:])
        if parts[:2] == ("state", "error"):
            return parts[1:]
        return parts

    def to_scheduled_function(self, row: sa.Row[Any]) -> ScheduledFunction:
        """A row of all the table's columns as a value."""
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
            options=row.options,
        )
