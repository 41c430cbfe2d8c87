"""A job runs at its time, once, and its row tells how it went."""

from __future__ import annotations

import time

import pytest

from confect_celery import DateTime, Duration
from tests.integration.rig import Rig
from tests.support.waiting import wait_for

NEAR, FAR = Duration.seconds(1), Duration.seconds(3)
"""Within the horizon, published right after the commit; and beyond it, left to the dispatcher."""


@pytest.mark.parametrize("delay", [NEAR, FAR], ids=["near", "far"])
def test_runs_at_its_time_and_under_its_own_id(shared: Rig, delay: Duration) -> None:
    label = f"look {delay}"
    before = DateTime.now()
    id = shared.scheduler.run_after(delay, shared.shop.look, {"label": label})
    row = shared.end(id)

    assert row.state.kind == "success" and row.completed_time is not None and row.next_at is None
    assert before + delay <= row.scheduled_time <= row.completed_time
    assert shared.marks(label)[0] * 1_000_000 >= row.scheduled_time.epoch_micros
    seen = shared.app.AsyncResult(id).get(timeout=10)
    assert seen == {"row": id, "task": id, "root": id, "eta": seen["eta"]}
    assert DateTime.parse(seen["eta"]) == row.scheduled_time


def test_none_is_early(shared: Rig) -> None:
    delays = [Duration.millis(1000 + 60 * number) for number in range(40)]
    jobs = [(delay, shared.shop.mark, {"label": f"on time {delay}"}) for delay in delays]
    rows = shared.ended(shared.scheduler.run_many(jobs))

    assert {row.state.kind for row in rows} == {"success"}
    for row in rows:
        [at] = shared.marks(row.args["label"])
        assert at * 1_000_000 >= row.scheduled_time.epoch_micros


def test_a_mutation_that_raises_leaves_nothing_but_its_error(shared: Rig) -> None:
    row = shared.end(shared.scheduler.run_after(NEAR, shared.shop.mark_and_raise, {"label": "raises"}))

    assert row.state.kind == "failed" and row.state.error is not None
    assert (row.state.error.tag, row.state.error.data) == ("MarkError", {"label": "raises"})
    assert row.state.error.message == "cannot mark raises"
    assert shared.marks("raises") == [] and shared.called("child of raises") == []


def test_an_action_that_raises_keeps_what_it_did(shared: Rig) -> None:
    row = shared.end(shared.scheduler.run_after(NEAR, shared.shop.act_and_raise, {"label": "acts"}))

    assert row.state.kind == "failed" and row.state.error is not None
    assert (row.state.error.tag, row.state.error.data) == ("MarkError", {"label": "acts"})
    [child] = shared.called("child of acts")
    assert child.parent_id == row.id and shared.end(child.id).state.kind == "success"
    assert len(shared.marks("acts")) == len(shared.marks("child of acts")) == 1


@pytest.mark.parametrize(("kind", "attempt"), [("slow_mark", 0), ("slow_act", 1)])
def test_delivered_many_times_it_runs_once(shared: Rig, kind: str, attempt: int) -> None:
    ids = {}
    for times in (2, 10):
        args = shared.slow(f"{kind} {times} times", 0.2)
        id = ids[times] = shared.scheduler.run_after(Duration.seconds(1.5), getattr(shared.shop, kind), args)
        shared.publish(shared.delivery(id), times - 1)

    for times, id in ids.items():
        row = shared.end(id)
        wait_for(lambda id=id, times=times: shared.dropped(id) == times - 1, what="the duplicates to be dropped")
        assert (row.state.kind, shared.row(id).attempt) == ("success", attempt)
        labels = ["{} started", "{} ended", "{} first child"] if attempt else ["{}"]
        for label in labels:
            shared.marked(label.format(row.args["label"]))
            assert len(shared.marks(label.format(row.args["label"]))) == 1


def test_a_late_duplicate_leaves_the_result_alone(shared: Rig) -> None:
    id = shared.scheduler.run_after(NEAR, shared.shop.mark, {"label": "late duplicate"})
    delivery = shared.delivery(id)
    result = shared.app.AsyncResult(id).get(timeout=10)
    shared.publish(delivery)
    wait_for(lambda: shared.dropped(id) == 1, what="the duplicate to be dropped")

    assert shared.app.AsyncResult(id).get(timeout=10) == result
    assert len(shared.marks("late duplicate")) == 1


def test_reading_a_row_does_not_wait_for_a_mutation_that_runs(shared: Rig) -> None:
    id = shared.scheduler.run_after(NEAR, shared.shop.slow_mark, shared.slow("has the lock", 2))
    wait_for(lambda: shared.received(id), what="it to start")
    wait_for(shared.locked, what="it to write")
    before = time.monotonic()

    assert shared.scheduler.get(id).state.kind == "pending"
    assert time.monotonic() - before < 0.5
