"""A look for due rows that begins at a bound, or passes some over: what it finds, and what it costs under an old
snapshot."""

from __future__ import annotations

from pathlib import Path

import pytest

from confect_celery.runtime.floor import Floor
from confect_celery.store import NewRow, StateKind, Store, new_id
from confect_celery.timing import DateTime, Duration
from tests.store.calls import Tall
from tests.store.explaining import buffers
from tests.support.databases import Databases

NOW = DateTime.parse("2030-01-01T00:00:00Z")
ONCE_DUE = 5_000


def schedule(store: Store, *due: DateTime, name: str = "internal/t/f") -> list[str]:
    rows = [NewRow(new_id(NOW), name, "mutation", {}, each, each, each) for each in due]
    with store.database.transaction() as t:
        store.rows.insert(t.connection, rows, delivered_until={}, born=StateKind.PENDING)
    return [row.id for row in rows]


def test_it_finds_what_is_due_from_the_bound_on(store: Store) -> None:
    second = Duration.seconds(1)
    early, at, late, _not_yet = schedule(store, NOW - second * 2, NOW - second, NOW, NOW + second * 9)

    def oldest(since: DateTime | None) -> DateTime | None:
        with store.database.autocommit() as connection:
            return store.rows.oldest_due(connection, now=NOW, ahead=NOW, since=since)

    def claimed(since: DateTime | None) -> list[str]:
        with store.database.transaction() as t:
            taken = store.rows.claim_due(t.connection, now=NOW, ahead=NOW, redelivery=second, batch=9, since=since)
            return [delivery.id for delivery in taken]

    assert oldest(None) == NOW - second * 2
    assert oldest(NOW - second) == NOW - second
    assert oldest(NOW + second) is None
    assert claimed(NOW - second) == [at, late]
    assert oldest(NOW - second) is None
    assert claimed(None) == [early]


def test_it_passes_over_the_rows_of_some_names(store: Store) -> None:
    second = Duration.seconds(1)
    for number, name in enumerate(("a", "b", "a", "c")):
        schedule(store, NOW - second * (9 - number), name=name)

    def claimed(*but: str, batch: int = 9) -> list[str]:
        with store.database.transaction() as t:
            return [
                delivery.name
                for delivery in store.rows.claim_due(
                    t.connection, now=NOW, ahead=NOW, redelivery=second, batch=batch, but=but
                )
            ]

    def oldest(*but: str) -> DateTime | None:
        with store.database.autocommit() as connection:
            return store.rows.oldest_due(connection, now=NOW, ahead=NOW, but=but)

    assert (oldest(), oldest("a"), oldest("a", "b")) == (NOW - second * 9, NOW - second * 8, NOW - second * 6)
    assert oldest("a", "b", "c") is None and claimed("a", "b", "c") == []
    assert claimed("a", batch=1) == ["b"]
    assert claimed("a", "nobody") == ["c"]
    assert oldest("a") is None
    assert claimed() == ["a", "a"]


def test_what_was_committed_below_the_floor_is_found_by_the_next_full_look(store: Store) -> None:
    floor, slow = Floor(), Duration.seconds(3)

    def look(now: DateTime) -> DateTime | None:
        since = floor.since(now)
        with store.database.autocommit() as connection:
            oldest = store.rows.oldest_due(connection, now=now, ahead=now, since=since)
        floor.looked(now, since, oldest, slow)
        return oldest

    assert look(NOW) is None
    late, in_time = NOW - Duration.minutes(1), NOW - Duration.seconds(1)
    schedule(store, late, in_time)
    found = [look(NOW + Duration.seconds(second)) for second in range(1, 12)]
    assert found[:9] == [in_time] * 9
    assert found[9] == late


@pytest.mark.parametrize("since", [None, NOW - Duration.seconds(5)])
def test_what_cannot_be_read_does_not_stop_a_bounded_claim(
    databases: Databases, tmp_path: Path, since: DateTime | None
) -> None:
    with databases.url("sqlite", tmp_path) as url:  # the others keep nothing but JSON in a JSON column
        store = Store(url)
        broken, sound = schedule(store, NOW - Duration.seconds(1), NOW)
        with store.database.transaction() as t:
            t.connection.exec_driver_sql("UPDATE _scheduled_functions SET args = '{' WHERE id = ?", (broken,))
            taken = store.rows.claim_due(
                t.connection, now=NOW, ahead=NOW, redelivery=Duration.seconds(1), batch=9, since=since
            )
        assert [delivery.id for delivery in taken] == [sound]
        store.database.dispose()


def test_under_an_old_snapshot_a_bounded_look_passes_over_nothing(databases: Databases, tmp_path: Path) -> None:
    with databases.url("postgresql", tmp_path) as url:
        store = Store(url)
        store.migrate()
        tall = Tall(store, {}, NOW)
        schedule(store, NOW - Duration.days(1))
        with store.database.engine.connect() as reader:
            reader = reader.execution_options(isolation_level="REPEATABLE READ")
            reader.exec_driver_sql("SELECT count(*) FROM _scheduled_functions").scalar_one()
            ids = schedule(store, *(NOW - Duration.millis(ONCE_DUE + n) for n in range(ONCE_DUE)))
            with store.database.transaction() as t:
                t.connection.exec_driver_sql("UPDATE _scheduled_functions SET state = 'success', next_at = NULL")
            assert len(ids) == ONCE_DUE
            schedule(store, NOW)

            def look(since: DateTime | None) -> int:
                return buffers(
                    tall,
                    lambda connection: store.rows.oldest_due(connection, now=NOW, ahead=NOW, since=since) == NOW,
                )

            full, bounded = look(None), look(NOW - Duration.seconds(1))
            assert bounded <= 10
            assert full > 10 * bounded  # else the snapshot kept nothing, and the test shows nothing
        store.database.dispose()
