"""Two at once, on every database: one of them wins, the other is told the truth."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from pydantic import BaseModel

from confect_celery import Confect, DatabaseWriter, DateTime, Duration, StateKind
from confect_celery.runtime import Dropped, Gate, Succeeded
from confect_celery.store import NewRow, OwnTransaction, Store, new_id

SECOND = Duration.seconds(1)
Labels = Callable[[], list[str]]


class Label(BaseModel):
    label: str


def rows(store: Store, count: int, due: DateTime, kind: Any = "action") -> list[str]:
    made = [NewRow(new_id(due), "internal/t/f", kind, {}, due, due, due) for _ in range(count)]
    with store.database.transaction() as t:
        store.rows.insert(t.connection, made, delivered_until={}, born=StateKind.PENDING)
    return [row.id for row in made]


def at_once(*works: Callable[[], Any]) -> list[Any]:
    """Start all at the same moment, each on a thread; give back what they gave."""
    barrier = threading.Barrier(len(works))

    def run(work: Callable[[], Any]) -> Any:
        barrier.wait()
        return work()

    with ThreadPoolExecutor(len(works)) as pool:
        return list(pool.map(run, works))


def test_many_dispatchers_take_each_row_once(store: Store) -> None:
    now = DateTime.now()
    ids = rows(store, 300, now)

    def dispatcher() -> list[str]:
        taken: list[str] = []
        while True:
            claimed = store.database.retrying(
                lambda t: store.rows.claim_due(t.connection, now=now, ahead=now, redelivery=SECOND * 60, batch=20)
            )
            if not claimed:
                with store.database.autocommit() as c:
                    if not store.rows.oldest_due(c, now=now, ahead=now):
                        return taken
            taken += [delivery.id for delivery in claimed]

    taken = Counter(id for part in at_once(*[dispatcher] * 4) for id in part)
    assert taken == Counter(ids)


@pytest.mark.parametrize("round", range(5))
def test_of_many_claimers_one_starts_the_action(store: Store, round: int) -> None:
    (id,) = rows(store, 1, DateTime.now())

    def claim() -> bool:
        return store.database.retrying(lambda t: store.rows.start(t.connection, id, 0, DateTime.now() + SECOND))

    assert sorted(at_once(*[claim] * 4)) == [False, False, False, True]


@pytest.mark.parametrize("round", range(5))
def test_cancel_against_claim_and_reschedule_against_claim(store: Store, round: int) -> None:
    now = DateTime.now()
    first, second = rows(store, 2, now)

    def apply(work: Callable[[OwnTransaction], Any]) -> Callable[[], Any]:
        return lambda: store.database.retrying(work)

    started, canceled = at_once(
        apply(lambda t: store.rows.start(t.connection, first, 0, now + SECOND)),
        apply(lambda t: store.rows.cancel(t.connection, first, now)),
    )
    assert canceled, "a row that runs may be canceled, one that waits as well"
    assert store.rows  # the action either never started, or ran and its result will be ignored
    finished = store.database.retrying(lambda t: store.rows.succeed_running(t.connection, first, 1, now))
    assert finished is False
    started, moved = at_once(
        apply(lambda t: store.rows.start(t.connection, second, 0, now + SECOND)),
        apply(lambda t: store.rows.reschedule(t.connection, second, now + SECOND, now + SECOND, None)),
    )
    assert started != bool(moved), "exactly one of the two"


def test_prune_against_readers_and_writers(store: Store) -> None:
    old = DateTime.now() - Duration.days(30)
    ids = rows(store, 200, old)
    with store.database.transaction() as t:
        for id in ids[::2]:
            store.rows.succeed_pending(t.connection, id, 0, old)

    def prune() -> int:
        total, after = 0, ""
        while True:
            gone, further = store.database.retrying(
                lambda t, after=after: store.rows.prune(
                    t.connection, after=after, now=DateTime.now(), oldest=old + SECOND, batch=20
                )
            )
            total += gone
            if further is None:
                return total
            after = further

    def read() -> int:
        with store.database.snapshot() as c:
            return sum(store.rows.get(c, id) is not None for id in ids[1::2])

    def cancel() -> int:
        return sum(
            store.database.retrying(lambda t, id=id: store.rows.cancel(t.connection, id, DateTime.now()))
            for id in ids[1:21:2]
        )

    pruned, seen, canceled = at_once(prune, read, cancel)
    assert (pruned, seen, canceled) == (100, 100, 10)


@pytest.fixture
def gate(confect: Confect) -> Gate:
    return confect.gate


def _due_now(confect: Confect, function: Any, args: dict[str, Any]) -> str:
    """A row that is due, without a message."""
    now = confect.clock.now()
    row = NewRow(new_id(now), function.name, function.kind, args, now, now, now)
    with confect.store.database.transaction() as t:
        confect.store.rows.insert(t.connection, [row], delivered_until={}, born=StateKind.PENDING)
    return row.id


def test_ten_duplicates_at_once_run_a_mutation_once(confect: Confect, gate: Gate, marks: Labels) -> None:
    @confect.group("t").internal_mutation
    def mark(args: Label, db: DatabaseWriter) -> None:
        db.table("marks").insert({"label": args.label})
        time.sleep(0.05)  # long enough for the others to arrive while it runs

    id = _due_now(confect, mark, {"label": "x"})
    outcomes = at_once(*[lambda: gate.run(id, 0)] * 10)
    assert Counter(type(outcome) for outcome in outcomes) == {Succeeded: 1, Dropped: 9}
    assert {outcome.reason for outcome in outcomes if isinstance(outcome, Dropped)} <= {"running", "finished"}
    assert marks() == ["x"]


def test_ten_duplicates_at_once_start_an_action_once(confect: Confect, gate: Gate) -> None:
    started: list[int] = []

    @confect.group("t").internal_action
    def act() -> None:
        started.append(1)

    id = _due_now(confect, act, {})
    outcomes = at_once(*[lambda: gate.run(id, 0)] * 10)
    assert Counter(type(outcome) for outcome in outcomes) == {Succeeded: 1, Dropped: 9}
    assert started == [1]


def test_cancel_does_not_wait_for_a_running_mutation_and_wins(confect: Confect, gate: Gate, marks: Labels) -> None:
    """SQLite has one writer, so there the cancel waits and loses; either way the caller is told the truth."""
    running, go_on = threading.Event(), threading.Event()

    @confect.group("t").internal_mutation
    def slow(args: Label, db: DatabaseWriter) -> None:
        db.table("marks").insert({"label": args.label})
        running.set()
        go_on.wait(10)

    id = _due_now(confect, slow, {"label": "x"})
    one_writer = confect.store.database.url.get_backend_name() == "sqlite"
    with ThreadPoolExecutor(2) as pool:
        outcome = pool.submit(gate.run, id, 0)
        assert running.wait(10)
        cancel = pool.submit(confect.scheduler.cancel, id)
        if not one_writer:
            assert cancel.result(timeout=5) is True, "while the mutation still runs"
        go_on.set()
        canceled, ended = cancel.result(timeout=10), outcome.result(timeout=10)
    row = confect.scheduler.get(id)
    assert row is not None
    if canceled:
        assert ended == Dropped("canceled")
        assert (row.state.kind, marks()) == (StateKind.CANCELED, [])
    else:
        assert isinstance(ended, Succeeded)
        assert (row.state.kind, marks()) == (StateKind.SUCCESS, ["x"])
    assert canceled != one_writer


def test_two_mutations_that_deadlock_both_run_in_the_end(confect: Confect, gate: Gate, marks: Labels) -> None:
    if confect.store.database.url.get_backend_name() == "sqlite":
        return  # one writer cannot deadlock
    with confect.writer() as db:
        ids = [db.table("marks").insert({"label": label}) for label in ("a", "b")]
    meet = threading.Barrier(2)
    tries: Counter[str] = Counter()

    @confect.group("t").internal_mutation
    def cross(args: Label, db: DatabaseWriter) -> None:
        first, second = ids if args.label == "x" else ids[::-1]
        tries[args.label] += 1
        db.table("marks").patch(first, {"label": f"{args.label}1"})
        if tries[args.label] == 1:
            meet.wait(10)
        db.table("marks").patch(second, {"label": f"{args.label}2"})

    jobs = [_due_now(confect, cross, {"label": label}) for label in ("x", "y")]
    outcomes = at_once(*(lambda id=id: gate.run(id, 0) for id in jobs))  # type: ignore[misc]
    assert [type(outcome) for outcome in outcomes] == [Succeeded, Succeeded], outcomes
    assert sum(tries.values()) >= 3, "one of them was the victim and was tried again"
    assert len(marks()) == 2
