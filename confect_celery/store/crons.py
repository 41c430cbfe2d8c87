"""The statements on `_confect_crons`: one row a cron, its next fire the thing that dispatchers compare and swap."""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from confect_celery.timing import DateTime

__all__ = ["CronRow", "CronStatements"]


@dataclass(frozen=True, slots=True)
class CronRow:
    """What the table knows of a cron. `missed` counts fires that nobody was there for, `skipped` those that found the
    last run still pending or running."""

    name: str
    spec: str
    next_at: DateTime
    last_at: DateTime | None
    last_id: str | None
    missed: int
    skipped: int


class CronStatements:
    """Each method runs one statement on the caller's connection."""

    def __init__(self, table: sa.Table) -> None:
        self.table = table
        c = table.c
        self._columns = [c.name, c.spec, c.next_at, c.last_at, c.last_id, c.missed, c.skipped]

    def all(self, connection: sa.Connection) -> dict[str, CronRow]:
        """Every cron that was ever seen, by name."""
        rows = connection.execute(sa.select(*self._columns))
        return {row.name: CronRow(*row) for row in rows}

    def add(self, connection: sa.Connection, name: str, spec: str, next_at: DateTime) -> bool:
        """A cron that is seen for the first time; False when somebody else was first."""
        values = {"name": name, "spec": spec, "next_at": next_at, "missed": 0, "skipped": 0}
        try:
            with connection.begin_nested():
                connection.execute(sa.insert(self.table), values)
        except IntegrityError:
            return False
        return True

    def respec(self, connection: sa.Connection, seen: CronRow, spec: str, next_at: DateTime) -> bool:
        """Another schedule; False when the row is not what it was."""
        return self._swap(connection, seen, {"spec": spec, "next_at": next_at})

    def fire(
        self, connection: sa.Connection, seen: CronRow, latest: DateTime, next_at: DateTime, missed: int, id: str | None
    ) -> bool:
        """The cron has fired for `latest`, as the row `id`, or was skipped when that is None; False when somebody else
        has fired it."""
        c = self.table.c
        values = {"next_at": next_at, "last_at": latest, "missed": c.missed + missed}
        values |= {"skipped": c.skipped + 1} if id is None else {"last_id": id}
        return self._swap(connection, seen, values)

    def _swap(self, connection: sa.Connection, seen: CronRow, values: dict[str, object]) -> bool:
        c = self.table.c
        guard = (c.name == seen.name, c.spec == seen.spec, c.next_at == seen.next_at)
        return connection.execute(sa.update(self.table).where(*guard).values(values)).rowcount == 1
