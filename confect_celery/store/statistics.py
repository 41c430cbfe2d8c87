"""Figures about the table, each one aggregate statement that looks at a bounded part of it.

Two parts are looked at: the *live* rows (pending and inProgress) in the order of the index on `next_at`, and the
*recent* rows, the newest by the primary key. Neither is more than `most` rows, so a table of any size costs the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from confect_celery.store.ids import first_id_at
from confect_celery.store.query.json_place import json_place
from confect_celery.store.row import StateKind
from confect_celery.timing import DateTime, Duration

__all__ = ["Backlog", "Statistics"]

_PERCENTILES: Final = (50, 90, 99, 100)


class _Seconds(FunctionElement[float]):
    """How many seconds the first instant is after the second."""

    type = sa.Double()
    inherit_cache = True
    name = "seconds_between"


@compiles(_Seconds, "postgresql")
def _on_postgresql(element: Any, compiler: Any, **options: Any) -> str:
    later, earlier = (compiler.process(each, **options) for each in element.clauses)
    return f"EXTRACT(EPOCH FROM ({later} - {earlier}))"


@compiles(_Seconds, "mysql")
@compiles(_Seconds, "mariadb")
def _on_mysql(element: Any, compiler: Any, **options: Any) -> str:
    later, earlier = (compiler.process(each, **options) for each in element.clauses)
    return f"(TIMESTAMPDIFF(MICROSECOND, {earlier}, {later}) / 1000000)"


@compiles(_Seconds, "sqlite")
def _on_sqlite(element: Any, compiler: Any, **options: Any) -> str:
    later, earlier = (compiler.process(each, **options) for each in element.clauses)
    return f"((julianday({later}) - julianday({earlier})) * 86400.0)"


@dataclass(frozen=True, slots=True)
class Backlog:
    """Rows in one state whose time to be looked at has passed: how many, and since when the first waits."""

    state: StateKind
    count: int
    since: DateTime


class Statistics:
    """The figures of one table; each method runs one statement on the caller's connection."""

    def __init__(self, table: sa.Table, *, most: int = 100_000) -> None:
        self._table = table
        self._c = table.c
        self._most = most

    def live(self, connection: sa.Connection) -> dict[StateKind, int]:
        """How many rows are pending and inProgress. Where they add up to `most`, there may be more."""
        rows = self._live()
        statement = sa.select(rows.c.state, sa.func.count()).group_by(rows.c.state)
        return {StateKind(state): count for state, count in connection.execute(statement)}

    def recent(self, connection: sa.Connection, since: DateTime) -> dict[StateKind, int]:
        """The states of the newest rows created after `since`. Where they add up to `most`, there may be more."""
        rows = self._recent(since)
        statement = sa.select(rows.c.state, sa.func.count()).group_by(rows.c.state)
        return {StateKind(state): count for state, count in connection.execute(statement)}

    def due(self, connection: sa.Connection, now: DateTime, minutes: int) -> list[int]:
        """How many pending rows are due in each of the next minutes; those handed over already are not counted."""
        rows = self._coming(now, Duration.minutes(minutes))
        minute: sa.ColumnElement[Any] = sa.func.floor(_Seconds(rows.c.next_at, self._time(now)) / 60)
        if connection.dialect.name == "sqlite":
            minute = sa.cast(_Seconds(rows.c.next_at, self._time(now)) / 60, sa.Integer())  # floor() may be missing
        counted = sa.select(minute.label("minute")).where(rows.c.deliveries == 0).subquery()
        statement = sa.select(counted.c.minute, sa.func.count()).group_by(counted.c.minute)
        plot = [0] * minutes
        for at, count in connection.execute(statement):
            plot[min(max(int(at), 0), minutes - 1)] += count
        return plot

    def forecast(self, connection: sa.Connection, now: DateTime, within: Duration) -> list[tuple[str, int, DateTime]]:
        """What is due from now on `within` that time: each function, how often, and when first."""
        rows = self._coming(now, within)
        first, count = sa.func.min(rows.c.next_at, type_=self._c.next_at.type), sa.func.count()
        statement = sa.select(rows.c.name, count, first).group_by(rows.c.name).order_by(count.desc(), rows.c.name)
        return [(name, times, at) for name, times, at in connection.execute(statement)]

    def names(self, connection: sa.Connection) -> list[tuple[str, str, int]]:
        """The functions of pending rows: name, kind, and how many rows."""
        rows, count = self._live(_is(self._c.state, StateKind.PENDING)), sa.func.count()
        statement = sa.select(rows.c.name, rows.c.kind, count).group_by(rows.c.name, rows.c.kind).order_by(rows.c.name)
        return [(name, kind, times) for name, kind, times in connection.execute(statement)]

    def backlog(self, connection: sa.Connection, until: DateTime) -> list[Backlog]:
        """Rows that should have been looked at by `until`: due or lost ones that no dispatcher has taken (pending), and
        ones whose worker died but that no sweep has ended (inProgress)."""
        rows = self._live(self._c.next_at <= until)
        first = sa.func.min(rows.c.next_at, type_=self._c.next_at.type)
        statement = sa.select(rows.c.state, sa.func.count(), first).group_by(rows.c.state)
        return [Backlog(StateKind(state), count, since) for state, count, since in connection.execute(statement)]

    def waiting(self, connection: sa.Connection, now: DateTime, longest: Duration) -> tuple[int, DateTime | None]:
        """Pending rows whose time has come: how many, and the earliest time. `longest` is how far into the future the
        `next_at` of a row may lie whose message is under way or lost."""
        rows = self._live(_is(self._c.state, StateKind.PENDING), self._c.next_at <= now + longest)
        first = sa.func.min(rows.c.scheduled_time, type_=self._c.next_at.type)
        statement = sa.select(sa.func.count(), first).where(rows.c.scheduled_time <= self._time(now))
        count, since = connection.execute(statement).one()
        return count, since

    def lags(self, connection: sa.Connection, since: DateTime) -> tuple[int, dict[int, float]]:
        """Of the recent rows that ran to their end: how many, and percentiles of the seconds from the time they were
        due (or scheduled, where that was later) to their end."""
        rows = self._recent(since)
        start = sa.case(
            (rows.c.creation_time > rows.c.scheduled_time, rows.c.creation_time), else_=rows.c.scheduled_time
        )
        lag = _Seconds(rows.c.completed_time, start)
        ran = _is(rows.c.state, StateKind.SUCCESS, StateKind.FAILED)
        measured = sa.select(lag.label("lag")).where(ran).subquery()
        place = sa.func.row_number().over(order_by=measured.c.lag).label("place")
        placed = sa.select(measured.c.lag, place, sa.func.count().over().label("total")).subquery()
        # The nearest rank, in integers: the smallest place that is at least so many percent of the total.
        at = {percent: (placed.c.place * 100 >= placed.c.total * percent) for percent in _PERCENTILES}
        found = [sa.func.min(sa.case((reached, placed.c.lag))) for reached in at.values()]
        total, *values = connection.execute(sa.select(sa.func.max(placed.c.total), *found)).one()
        return total or 0, {} if not total else dict(zip(at, map(float, values), strict=True))

    def failures(self, connection: sa.Connection, since: DateTime) -> list[tuple[str, str, int]]:
        """Of the recent rows that failed: error tag, function, and how often."""
        rows = self._recent(since, self._c.error)
        tag = sa.func.coalesce(
            json_place(rows.c.error, ("tag",), connection.dialect.name).text, sa.literal("?", sa.Text())
        )
        named = sa.select(tag.label("tag"), rows.c.name).where(_is(rows.c.state, StateKind.FAILED)).subquery()
        statement = sa.select(named.c.tag, named.c.name, sa.func.count()).group_by(named.c.tag, named.c.name)
        found = [(_text(tag), name, count) for tag, name, count in connection.execute(statement)]
        return sorted(found, key=lambda each: (-each[2], each[0], each[1]))

    # -- how

    def _time(self, when: DateTime) -> sa.ColumnElement[Any]:
        return sa.literal(when, self._c.next_at.type)

    def _live(self, *conditions: sa.ColumnElement[bool]) -> sa.Subquery:
        c = self._c
        live = sa.select(c.state, c.name, c.kind, c.next_at, c.scheduled_time, c.deliveries)
        live = live.where(c.next_at.is_not(None), *conditions)
        return live.order_by(c.next_at, c.id).limit(self._most).subquery()

    def _coming(self, now: DateTime, within: Duration) -> sa.Subquery:
        return self._live(_is(self._c.state, StateKind.PENDING), self._c.next_at > now, self._c.next_at <= now + within)

    def _recent(self, since: DateTime, *more: sa.ColumnElement[Any]) -> sa.Subquery:
        c = self._c
        newest = sa.select(c.state, c.name, c.creation_time, c.scheduled_time, c.completed_time, *more)
        return newest.where(c.id >= first_id_at(since)).order_by(c.id.desc()).limit(self._most).subquery()


def _is(column: sa.ColumnElement[str], *kinds: StateKind) -> sa.ColumnElement[bool]:
    # In the SQL's text, never bound: see Statements.
    return sa.or_(*(column == sa.literal_column(f"'{kind.value}'", sa.String) for kind in kinds))


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
