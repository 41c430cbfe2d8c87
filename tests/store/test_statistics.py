"""The figures of `confect stats`, on every database, against rows whose times are known."""

from __future__ import annotations

from typing import Any

import pytest

from confect_celery.store import Backlog, NewRow, StateKind, Statistics, Store, new_id
from confect_celery.timing import DateTime, Duration

NOW = DateTime.parse("2026-03-08T12:00:00Z")
DAY = Duration.days(1)
SECOND = Duration.seconds(1)


def add(
    store: Store,
    name: str,
    due: DateTime,
    *,
    state: StateKind = StateKind.PENDING,
    created: DateTime = NOW,
    completed: DateTime | None = None,
    **values: Any,
) -> str:
    row = NewRow(new_id(created), name, "mutation", {}, due, created, due)
    with store.database.transaction() as transaction:
        store.rows.insert(transaction.connection, [row], delivered_until={}, born=StateKind.PENDING)
        if state.terminal:
            values = {"next_at": None, "completed_time": completed or due, **values}
        if values or state is not StateKind.PENDING:
            table = store.table
            given = {"state": state.value, **values}
            transaction.connection.execute(table.update().where(table.c.id == row.id).values(given))
    return row.id


def test_states_are_counted_within_the_bounds(store: Store) -> None:
    for _ in range(3):
        add(store, "a", NOW + DAY)
    add(store, "a", NOW, state=StateKind.IN_PROGRESS)
    add(store, "a", NOW, state=StateKind.SUCCESS)
    add(store, "a", NOW, state=StateKind.SUCCESS, created=NOW - 2 * DAY)
    with store.database.autocommit() as connection:
        figures = Statistics(store.table)
        assert figures.live(connection) == {StateKind.PENDING: 3, StateKind.IN_PROGRESS: 1}
        recent = figures.recent(connection, NOW - DAY)
        assert recent == {StateKind.PENDING: 3, StateKind.IN_PROGRESS: 1, StateKind.SUCCESS: 1}
        assert sum(Statistics(store.table, most=2).live(connection).values()) == 2
        assert sum(Statistics(store.table, most=2).recent(connection, NOW - 9 * DAY).values()) == 2


def test_due_rows_are_counted_by_the_minute(store: Store) -> None:
    for seconds in (0.000001, 59.999999, 60.5, 119, 299.999, 300.1):
        add(store, "a", NOW + Duration.seconds(seconds))
    add(store, "a", NOW - SECOND)
    add(store, "a", NOW + SECOND, deliveries=1)
    add(store, "a", NOW + SECOND, state=StateKind.IN_PROGRESS)
    with store.database.autocommit() as connection:
        assert Statistics(store.table).due(connection, NOW, 5) == [2, 2, 0, 0, 1]


def test_the_forecast_is_by_function(store: Store) -> None:
    for hours in (1, 2, 25):
        add(store, "often", NOW + Duration.hours(hours))
    add(store, "once", NOW + Duration.minutes(1))
    with store.database.autocommit() as connection:
        found = Statistics(store.table).forecast(connection, NOW, DAY)
        names = Statistics(store.table).names(connection)
    assert found == [("often", 2, NOW + Duration.hours(1)), ("once", 1, NOW + Duration.minutes(1))]
    assert names == [("often", "mutation", 3), ("once", "mutation", 1)]


def test_what_waits_and_what_nobody_took(store: Store) -> None:
    figures = Statistics(store.table)
    with store.database.autocommit() as connection:
        assert figures.waiting(connection, NOW, DAY) == (0, None)
        assert figures.backlog(connection, NOW) == []
    add(store, "due", NOW - 10 * SECOND)
    add(store, "under way", NOW - 90 * SECOND, next_at=NOW + 30 * SECOND, deliveries=2)
    add(store, "later", NOW + 10 * SECOND)
    add(store, "dead", NOW - DAY, state=StateKind.IN_PROGRESS, next_at=NOW - 5 * SECOND)
    with store.database.autocommit() as connection:
        assert figures.waiting(connection, NOW, DAY) == (2, NOW - 90 * SECOND)
        found = {each.state: each for each in figures.backlog(connection, NOW - SECOND)}
    assert found == {
        StateKind.PENDING: Backlog(StateKind.PENDING, 1, NOW - 10 * SECOND),
        StateKind.IN_PROGRESS: Backlog(StateKind.IN_PROGRESS, 1, NOW - 5 * SECOND),
    }


def test_lags_are_percentiles_of_the_rows_that_ran(store: Store) -> None:
    figures = Statistics(store.table)
    with store.database.autocommit() as connection:
        assert figures.lags(connection, NOW - DAY) == (0, {})
    for lag in range(1, 101):
        state = StateKind.FAILED if lag % 2 else StateKind.SUCCESS
        add(store, "a", NOW, state=state, completed=NOW + Duration.millis(10 * lag))
    # Scheduled for a time in the past: late only since it was scheduled.
    add(store, "a", NOW - DAY, state=StateKind.SUCCESS, completed=NOW + SECOND)
    add(store, "a", NOW, state=StateKind.CANCELED, completed=NOW + DAY)
    with store.database.autocommit() as connection:
        total, found = figures.lags(connection, NOW - DAY)
    assert total == 101
    assert found == pytest.approx({50: 0.51, 90: 0.91, 99: 1.0, 100: 1.0}, abs=0.002)


def test_failures_are_counted_by_tag(store: Store) -> None:
    for tag, name in (("Lost", "b"), ("Lost", "b"), ("Lost", "a"), ("Zoé", "a")):
        add(store, name, NOW, state=StateKind.FAILED, error={"tag": tag, "message": "m"})
    add(store, "a", NOW, state=StateKind.FAILED, error=["not of our shape"])
    add(store, "a", NOW, state=StateKind.SUCCESS)
    add(store, "a", NOW, state=StateKind.FAILED, error={"tag": "Old"}, created=NOW - 2 * DAY)
    with store.database.autocommit() as connection:
        found = Statistics(store.table).failures(connection, NOW - DAY)
    assert found == [("Lost", "b", 2), ("?", "a", 1), ("Lost", "a", 1), ("Zoé", "a", 1)]


def test_the_server_tells_its_connections(store: Store) -> None:
    with store.database.autocommit() as connection:
        found = store.database.dialect.connections(connection)
    if store.database.url.get_backend_name() == "sqlite":
        assert found is None
    else:
        assert found is not None and 1 <= found[0] <= found[1]
