"""Every transition from every state: it happens exactly where the table of transitions allows it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from confect_celery import DateTime, Duration, ScheduledFunctionId
from confect_celery.store import HELD_FOR, TRANSITIONS, EncodedCall, NewRow, Pending, StateKind, Store, new_id
from tests.store.conftest import migrated
from tests.support.databases import DATABASES, Databases

NOW = DateTime.parse("2030-01-01T00:00:00.123456Z")
SECOND = Duration.seconds(1)
CALL = EncodedCall("internal/t/f", "task", {"a": 2}, {"retries": 1})
ERROR = {"tag": "Broken", "message": "it broke"}
Step = Callable[[Store, sa.Connection, str, int], object]


@pytest.fixture(params=DATABASES)
def store(request: pytest.FixtureRequest, databases: Databases) -> Iterator[Store]:
    """One database for all of these, empty at first."""
    store = databases.kept(request.param, migrated)
    yield store
    with store.database.transaction() as transaction:
        transaction.connection.execute(store.table.delete())


def pending(id: str, attempt: int) -> Pending:
    return Pending(ScheduledFunctionId(id), "internal/t/f", "action", {"a": 1}, attempt, NOW, {}, NOW)


def hold(store: Store, connection: sa.Connection, id: str, attempt: int) -> bool:
    return bool(store.rows.hold(connection, [pending(id, attempt)], NOW + HELD_FOR))


def doubt(store: Store, connection: sa.Connection, id: str, attempt: int) -> bool:
    """Of a row that is held; `tests/store/test_holding.py` shows when it comes to that."""
    again = {"rows": [id], "then": NOW + HELD_FOR}
    assert not connection.execute(store.rows._doubt, again).rowcount
    return hold(store, connection, id, attempt) and bool(connection.execute(store.rows._doubt, again).rowcount)


def release(store: Store, connection: sa.Connection, id: str, attempt: int) -> bool:
    """Of a row that is held; what is not cannot be released."""
    assert not store.rows.release(connection, [id], attempt, NOW + SECOND)
    return hold(store, connection, id, attempt) and bool(
        store.rows.release(connection, [id], attempt + 1, NOW + SECOND)
    )


STEPS: dict[str, Step] = {
    "succeed_pending": lambda s, c, id, n: s.rows.succeed_pending(c, id, n, NOW),
    "fail_pending": lambda s, c, id, n: s.rows.fail_pending(c, id, n, NOW, ERROR),
    "start": lambda s, c, id, n: s.rows.start(c, id, n, NOW + SECOND),
    "start_due": lambda s, c, id, n: s.rows.start_due(c, id, n, "internal/t/f", NOW, NOW + SECOND),
    "succeed_running": lambda s, c, id, n: s.rows.succeed_running(c, id, n, NOW),
    "fail_running": lambda s, c, id, n: s.rows.fail_running(c, id, n, NOW, ERROR),
    "retry": lambda s, c, id, n: s.rows.retry(c, id, n, CALL, NOW + SECOND, None),
    "requeue": lambda s, c, id, n: s.rows.requeue(c, id, n, NOW + SECOND),
    "reschedule": lambda s, c, id, n: s.rows.reschedule(c, id, NOW + SECOND, NOW + SECOND, None),
    "postpone": lambda s, c, id, n: s.rows.postpone(c, id, n, NOW + SECOND),
    "cancel": lambda s, c, id, n: s.rows.cancel(c, id, NOW),
    "hand_over": lambda s, c, id, n: [
        d for d in s.rows.claim_due(c, now=NOW, ahead=NOW, redelivery=SECOND, batch=10) if d.id == id
    ],
    "lose": lambda s, c, id, n: s.rows.lose(c, id, n, NOW + SECOND),
    "hold": hold,
    "release": release,
    "doubt": doubt,
    "succeed_together": lambda s, c, id, n: s.rows.succeed_together(c, [pending(id, n)], NOW),
    "bury": lambda s, c, id, n: s.rows.bury(c, [row.id for row in s.rows.dead(c, NOW, 10) if row.id == id], NOW, ERROR),
}
EDGE_OF = {
    "succeed_together": "succeed_pending",
    "start_due": "start",
    "lose": "postpone",
    "requeue": "retry",
    "bury": "fail_running",
}


RETURNING = ("hold", "release", "doubt", "succeed_together", "start_due")
"""Only where an UPDATE can tell which rows it changed."""


def do(name: str, store: Store, connection: sa.Connection, id: str, attempt: int) -> bool:
    if name in RETURNING and not store.database.dialect.update_returning:
        pytest.skip(f"{name} is for databases whose UPDATE can give back rows")
    return bool(STEPS[name](store, connection, id, attempt))


def a_row(store: Store, connection: sa.Connection, kind: StateKind, due: DateTime = NOW) -> tuple[str, int]:
    """A row in this state, reached by the transitions themselves; and its attempt."""
    row = NewRow(new_id(NOW), "internal/t/f", "action", {"a": 1}, due, NOW, due)
    born = StateKind.CANCELED if kind is StateKind.CANCELED else StateKind.PENDING
    store.rows.insert(connection, [row], delivered_until={}, born=born)
    if kind is StateKind.IN_PROGRESS:
        assert store.rows.start(connection, row.id, 0, NOW)
        return row.id, 1
    if kind is StateKind.SUCCESS:
        assert store.rows.succeed_pending(connection, row.id, 0, NOW)
    if kind is StateKind.FAILED:
        assert store.rows.fail_pending(connection, row.id, 0, NOW, ERROR)
    return row.id, 0


def test_every_transition_has_a_step_here() -> None:
    assert {EDGE_OF.get(name, name) for name in STEPS} == TRANSITIONS.keys() - {"schedule", "bear_canceled"}


@pytest.mark.parametrize("kind", StateKind)
@pytest.mark.parametrize("name", STEPS)
def test_a_transition_leaves_only_the_states_it_names(store: Store, name: str, kind: StateKind) -> None:
    transition = TRANSITIONS[EDGE_OF.get(name, name)]
    with store.database.transaction() as t:
        id, attempt = a_row(store, t.connection, kind)
        before = store.rows.get(t.connection, id)
        happened = do(name, store, t.connection, id, attempt)
        after = store.rows.get(t.connection, id)
    assert before is not None and after is not None
    assert happened == (kind in transition.leaves)
    if not happened:
        assert after == before
        return
    assert after.state.kind is transition.enters
    # next_at is set if and only if the row is live, completed_time if and only if it is not.
    assert (after.next_at is None) == after.state.kind.terminal == (after.completed_time is not None)
    assert (after.state.error is not None) == (after.state.kind is StateKind.FAILED)
    assert after.attempt > before.attempt or transition.enters.terminal or name == "hand_over"


@pytest.mark.parametrize("name", [n for n in STEPS if n not in ("reschedule", "cancel", "hand_over", "bury")])
@pytest.mark.parametrize("kind", [StateKind.PENDING, StateKind.IN_PROGRESS])
def test_an_older_attempt_changes_nothing(store: Store, name: str, kind: StateKind) -> None:
    with store.database.transaction() as t:
        id, attempt = a_row(store, t.connection, kind)
        before = store.rows.get(t.connection, id)
        for stale in (attempt - 1, attempt + 1):
            assert not do(name, store, t.connection, id, stale)
        assert store.rows.get(t.connection, id) == before


@pytest.mark.parametrize("name", [n for n in STEPS if n not in ("hand_over", "bury")])
def test_an_unknown_id_changes_nothing(store: Store, name: str) -> None:
    with store.database.transaction() as t:
        assert not do(name, store, t.connection, "no-such-row", 0)


@pytest.mark.parametrize("second", StateKind)
@pytest.mark.parametrize("first", StateKind)
def test_one_ends_while_another_starts_each_by_its_own_guard(store: Store, first: StateKind, second: StateKind) -> None:
    with store.database.transaction() as t:
        (ended, ended_at), (started, started_at) = a_row(store, t.connection, first), a_row(store, t.connection, second)
        given = (ended, ended_at, NOW, started, started_at, NOW + SECOND)
        done = store.rows.succeed_and_start(t.connection, *given)
        after = [store.rows.get(t.connection, id) for id in (ended, started)]
        again = store.rows.succeed_and_start(t.connection, *given)
    assert done == (first is StateKind.IN_PROGRESS, second is StateKind.PENDING) and again == (False, False)
    assert [row and row.state.kind for row in after] == [
        StateKind.SUCCESS if done[0] else first, StateKind.IN_PROGRESS if done[1] else second
    ]  # fmt: skip
    assert [row and row.attempt for row in after] == [ended_at, started_at + done[1]]


def test_a_row_is_read_and_started_at_once_only_by_its_name_and_at_its_time(store: Store) -> None:
    if not store.database.dialect.update_returning:
        pytest.skip("start_due is for databases whose UPDATE can give back rows")
    with store.database.transaction() as t:
        id, _ = a_row(store, t.connection, StateKind.PENDING)
        loaded, before = store.rows.load(t.connection, id, 0), store.rows.get(t.connection, id)
        for name, now in (("internal/t/g", NOW), ("internal/t/f", NOW - Duration.micros(1))):
            assert store.rows.start_due(t.connection, id, 0, name, now, NOW + SECOND) is None
        assert store.rows.get(t.connection, id) == before
        assert store.rows.start_due(t.connection, id, 0, "internal/t/f", NOW, NOW + SECOND) == loaded
        after = store.rows.get(t.connection, id)
    assert after is not None and (after.attempt, after.next_at) == (1, NOW + SECOND)


def test_times_keep_their_microseconds_and_utc(store: Store) -> None:
    paris = DateTime.parse("2030-06-01T12:00:00.000001+02:00[Europe/Paris]")
    with store.database.transaction() as t:
        id, _ = a_row(store, t.connection, StateKind.PENDING, paris)
    with store.database.snapshot() as c:
        row = store.rows.get(c, id)
    assert row is not None
    assert str(row.scheduled_time) == "2030-06-01T10:00:00.000001Z"
    assert row.creation_time == NOW


def test_unicode_and_nesting_in_args_come_back_as_they_went(store: Store) -> None:
    args = {"名前": 'Zoë "quoted" \\ 🦉', "deep": [{"a": [1, 2.5, None, True, {"": "empty key"}]}], "null": None}
    row = NewRow(new_id(NOW), "internal/t/f", "mutation", args, NOW, NOW, NOW, {"queue": "é"})
    with store.database.transaction() as t:
        store.rows.insert(t.connection, [row], delivered_until={}, born=StateKind.PENDING)
        found = store.rows.get(t.connection, row.id)
    assert found is not None and found.args == args and found.options == {"queue": "é"}


def test_a_lost_message_waits_twice_as_long_each_time(store: Store) -> None:
    waits, now = [], NOW
    with store.database.transaction() as t:
        id, _ = a_row(store, t.connection, StateKind.PENDING)
        for _ in range(9):
            (d,) = store.rows.claim_due(t.connection, now=now, ahead=now, redelivery=SECOND, batch=10)
            row = store.rows.get(t.connection, d.id)
            assert row is not None and row.next_at is not None and row.id == id
            waits.append((row.next_at - now).total_seconds())
            assert not store.rows.oldest_due(t.connection, now=now, ahead=now + Duration.hours(9)), "taken ahead again"
            now = row.next_at
    assert waits == [1, 2, 4, 8, 16, 32, 64, 64, 64]


def test_due_rows_come_in_order_of_time_and_in_batches(store: Store) -> None:
    with store.database.transaction() as t:
        ids = [a_row(store, t.connection, StateKind.PENDING, NOW - SECOND * n)[0] for n in range(5)]
        a_row(store, t.connection, StateKind.PENDING, NOW + Duration.micros(1))
        taken = []
        while batch := store.rows.claim_due(t.connection, now=NOW, ahead=NOW, redelivery=SECOND, batch=2):
            assert len(batch) <= 2
            taken += [d.id for d in batch]
    assert taken == ids[::-1]


def test_prune_takes_old_terminal_rows_only_and_walks_on(store: Store) -> None:
    old, recent = NOW - Duration.days(8), NOW - Duration.days(1)
    with store.database.transaction() as t:
        gone, kept = [], []
        for n in range(30):
            created = old + SECOND * n
            row = NewRow(new_id(created), "internal/t/f", "action", {}, created, created, created)
            store.rows.insert(t.connection, [row], delivered_until={}, born=StateKind.PENDING)
            if n % 3 == 0:
                store.rows.succeed_pending(t.connection, row.id, 0, created)
                gone.append(row.id)
            elif n % 3 == 1:
                store.rows.succeed_pending(t.connection, row.id, 0, recent)  # created long ago, ended yesterday
                kept.append(row.id)
            else:
                kept.append(row.id)  # still pending
        after: str | None = ""
        total, steps = 0, 0
        while after is not None:
            count, after = store.rows.prune(t.connection, after=after, now=NOW, oldest=NOW - Duration.days(7), batch=7)
            total, steps = total + count, steps + 1
        assert (total, steps) == (10, 6)
        assert all(store.rows.get(t.connection, id) is None for id in gone)
        assert all(store.rows.get(t.connection, id) is not None for id in kept)


def test_the_due_query_uses_the_partial_index_of_sqlite(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path}/plan.db")
    with store.database.snapshot() as c:
        parameters = {"now": NOW, "ahead": NOW, "batch": 10}
        compiled = store.rows._pick_due.compile(c.engine)
        values = [str({**compiled.params, **parameters}[name]) for name in compiled.positiontup or []]
        plan = c.exec_driver_sql(f"EXPLAIN QUERY PLAN {compiled}", tuple(values)).all()
    text = " ".join(str(row) for row in plan)
    assert "USING INDEX ix_scheduled_functions_next (next_at<?)" in text, text
    assert "TEMP B-TREE" not in text, text
