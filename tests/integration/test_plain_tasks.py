"""A plain Celery task of the shop's, scheduled through us, is claimed and ended like any function."""

from __future__ import annotations

import pytest
from celery import chain, group

from confect_celery import Duration, NotSchedulable
from tests.integration.rig import Rig
from tests.support.waiting import wait_for

NEAR, FAR = Duration.seconds(1), Duration.seconds(3)


@pytest.mark.parametrize("delay", [NEAR, FAR], ids=["near", "far"])
def test_a_task_runs_at_its_time(shared: Rig, delay: Duration) -> None:
    x = int(delay.total_seconds()) * 100
    id = shared.scheduler.run_after(delay, shared.shop.add, {"x": x, "y": 2})
    row = shared.end(id)

    assert (row.name, row.kind, row.state.kind, row.attempt) == ("plain.add", "task", "success", 1)
    assert shared.app.AsyncResult(id).get(timeout=10) == x + 2
    [at] = shared.marks(f"plain {x + 2}")
    assert at * 1_000_000 >= row.scheduled_time.epoch_micros


def test_a_signature_keeps_its_own_arguments(shared: Rig) -> None:
    jobs = [
        (shared.shop.add.s(1000), {"y": 1}),
        (shared.shop.add.s(1000, 2), None),
        (shared.shop.add.s(x=1000, y=3), None),
    ]
    ids = [shared.scheduler.run_after(NEAR, signature, args) for signature, args in jobs]

    assert {row.state.kind for row in shared.ended(ids)} == {"success"}
    assert [shared.app.AsyncResult(id).get(timeout=10) for id in ids] == [1001, 1002, 1003]


def test_a_duplicate_message_starts_nothing(shared: Rig) -> None:
    id = shared.scheduler.run_after(NEAR, shared.shop.add, {"x": 2000, "y": 0})
    delivery = shared.delivery(id)
    shared.publish(delivery, 2)
    assert shared.end(id).state.kind == "success"
    shared.publish(delivery)
    wait_for(lambda: shared.dropped(id) == 3, what="the duplicates to be dropped")

    assert len(shared.marks("plain 2000")) == 1
    assert shared.row(id).state.kind == "success" and shared.app.AsyncResult(id).get(timeout=10) == 2000


def test_its_own_retries_end_in_its_row(shared: Rig) -> None:
    wanted = {0: (1, "success"), 2: (3, "success"), 9: (3, "failed")}
    jobs = [(NEAR, shared.shop.flaky, {"label": f"flaky {n}", "failures": n}) for n in wanted]
    rows = shared.ended(shared.scheduler.run_many(jobs))

    for row, (tries, kind) in zip(rows, wanted.values(), strict=True):
        assert row.state.kind == kind and len(shared.marks(row.args["label"])) == tries
        wait_for(shared.app.AsyncResult(row.id).ready, what="Celery to know")
        assert shared.app.AsyncResult(row.id).state == ("SUCCESS" if kind == "success" else "FAILURE")
    assert rows[2].state.error is not None and rows[2].state.error.tag == "MarkError"


def test_a_cancelled_task_never_starts(shared: Rig) -> None:
    id = shared.scheduler.run_after(NEAR, shared.shop.add, {"x": 3000, "y": 0})
    assert shared.scheduler.cancel(id) is True
    wait_for(lambda: shared.dropped(id), what="its message to be dropped")

    assert shared.row(id).state.kind == "canceled" and shared.marks("plain 3000") == []


def test_a_task_called_without_a_row_is_none_of_our_business(shared: Rig) -> None:
    assert shared.shop.add.delay(4000, 1).get(timeout=10) == 4001


def test_a_task_that_nobody_defines_fails(shared: Rig) -> None:
    signature = shared.app.signature("plain.removed", kwargs={"x": 1})
    row = shared.end(shared.scheduler.run_after(NEAR, signature))

    assert row.state.kind == "failed" and row.state.error is not None
    assert row.state.error.tag == "UnknownFunction" and "plain.removed" in row.state.error.message


def test_a_task_may_replace_itself(shared: Rig) -> None:
    id = shared.scheduler.run_after(NEAR, shared.shop.replacing, {"x": 5000})
    assert shared.app.AsyncResult(id).get(timeout=5) == 5001
    assert len(shared.marks("plain 5001")) == 1
    assert shared.end(id).state.kind == "success"


def test_the_options_of_a_signature_do_not_keep_it_from_running(shared: Rig) -> None:
    signature = shared.shop.header.s("x-shop")
    given = [{"headers": {"x-shop": "mine"}}, {"task_id": "mine"}, {"countdown": 3600}, {"argsrepr": "x"}]
    ids = [shared.scheduler.run_after(NEAR, signature.clone().set(**options)) for options in given]

    assert {row.state.kind for row in shared.ended(ids, within=5)} == {"success"}
    assert shared.app.AsyncResult(ids[0]).get(timeout=5) == "mine"


@pytest.mark.parametrize("canvas", ["chain", "group"])
def test_a_canvas_runs_or_is_refused(shared: Rig, canvas: str) -> None:
    two = shared.shop.add.s(1, 2), shared.shop.add.s(3) if canvas == "chain" else shared.shop.add.s(3, 4)
    try:
        id = shared.scheduler.run_after(NEAR, {"chain": chain, "group": group}[canvas](*two))
    except NotSchedulable:
        return
    assert shared.end(id).state.kind == "success"


def test_a_task_whose_child_is_killed_fails(fragile: Rig) -> None:
    row = fragile.end(fragile.scheduler.run_after(NEAR, fragile.shop.plain_die, {"label": "plain dies"}))

    assert row.state.kind == "failed" and row.state.error is not None and row.state.error.tag == "WorkerLost"
    assert len(fragile.marks("plain dies")) == 1


STATE_NONE = "task_postrun with state None, when the child is told to end, counts as success"


def test_a_task_over_its_time_limit_fails(fragile: Rig) -> None:
    row = fragile.end(fragile.scheduler.run_after(NEAR, fragile.shop.plain_never_ends, {"label": "plain, no end"}))

    assert row.state.kind == "failed" and row.state.error is not None
    assert row.state.error.tag == "TimeLimitExceeded"
    assert len(fragile.marks("plain, no end")) == 1


def test_terminating_a_running_task_cancels_its_row(fragile: Rig) -> None:
    id = fragile.scheduler.run_after(NEAR, fragile.shop.plain_waits, {"label": "plain terminated"})
    fragile.marked("plain terminated")
    fragile.app.control.terminate(id)

    assert fragile.end(id).state.kind == "canceled"


def test_a_task_that_raises_system_exit_fails(fragile: Rig) -> None:
    assert fragile.end(fragile.scheduler.run_after(NEAR, fragile.shop.plain_exits)).state.kind == "failed"
