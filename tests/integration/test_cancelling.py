"""What `cancel` and `revoke` say is so."""

from __future__ import annotations

import random

import pytest

from confect_celery import Duration, ScheduledFunctionId
from tests.integration.rig import Rig
from tests.support.waiting import wait_for

NEAR = Duration.seconds(1)


def _cancel_around_due(shared: Rig, function: object, prefix: str, count: int) -> dict[ScheduledFunctionId, bool]:
    """Schedule many, cancel some before they are due and the others while the worker works through them."""
    labels = [f"{prefix} {number}" for number in range(count)]
    jobs = [(Duration.millis(1000 + number), function, {"label": label}) for number, label in enumerate(labels)]
    ids = shared.scheduler.run_many(jobs)
    random.shuffle(ids)
    early, late = ids[: count // 4], ids[count // 4 :]
    told = {id: shared.scheduler.cancel(id) for id in early}
    wait_for(lambda: any(row.state.kind.terminal for row in shared.rows(late)), what="the first to run")
    return told | {id: shared.scheduler.cancel(id) for id in late}


def test_a_mutation_whose_cancel_said_true_never_ran(shared: Rig) -> None:
    told = _cancel_around_due(shared, shared.shop.mark, "cancelled mutation", 120)
    rows = shared.ended(list(told))

    assert set(told.values()) == {True, False}
    for row in rows:
        assert row.state.kind == ("canceled" if told[row.id] else "success")
        assert len(shared.marks(row.args["label"])) == (not told[row.id])


def test_an_action_whose_cancel_said_true_never_started_after_that(shared: Rig) -> None:
    told = _cancel_around_due(shared, shared.shop.look, "cancelled action", 80)
    rows = shared.ended(list(told))
    started = [row for row in rows if row.attempt]  # each claim raises the attempt
    wait_for(lambda: all(shared.marks(row.args["label"]) for row in started), what="those that run to end")

    assert set(told.values()) == {True, False}
    for row in rows:
        assert row.state.kind == ("canceled" if told[row.id] else "success")
        assert len(shared.marks(row.args["label"])) == row.attempt


def test_a_cancelled_row_is_told_to_celery_as_revoked(shared: Rig) -> None:
    id = shared.scheduler.run_after(NEAR, shared.shop.mark, {"label": "told to celery"})
    assert shared.scheduler.cancel(id) is True
    assert shared.scheduler.cancel(id) is False
    wait_for(lambda: shared.dropped(id), what="its message to be dropped")

    assert shared.app.AsyncResult(id).state == "REVOKED"
    assert shared.marks("told to celery") == []


def test_cancelled_while_running_it_finishes_and_is_ignored(shared: Rig) -> None:
    id = shared.scheduler.run_after(NEAR, shared.shop.slow_act, shared.slow("ignored", 1.5))
    shared.marked("ignored started")
    assert shared.row(id).state.kind == "inProgress"
    assert shared.scheduler.cancel(id) is True
    assert not shared.marks("ignored ended")
    shared.marked("ignored ended")
    wait_for(lambda: shared.dropped(id), what="its result to be ignored")

    row = shared.row(id)
    assert row.state.kind == "canceled" and row.state.error is None
    [first], [late] = shared.called("ignored first child"), shared.called("ignored child")
    assert first.parent_id == late.parent_id == id
    assert shared.end(first.id).state.kind == "success"
    assert late.state.kind == "canceled" and late.completed_time == late.creation_time
    assert len(shared.marks("ignored first child")) == 1 and shared.marks("ignored child") == []


def test_a_mutation_that_runs_races_with_its_cancel(shared: Rig) -> None:
    ids = [shared.scheduler.run_after(NEAR, shared.shop.slow_mark, shared.slow(f"race {n}", 0.3)) for n in range(4)]
    wait_for(lambda: any(row.state.kind.terminal for row in shared.rows(ids)), what="the first to run")
    told = {id: shared.scheduler.cancel(id) for id in ids}

    for row in shared.ended(ids):
        assert row.state.kind == ("canceled" if told[row.id] else "success")
        assert len(shared.marks(row.args["label"])) == (not told[row.id])


def test_revoking_a_published_job_cancels_its_row(shared: Rig) -> None:
    id = shared.scheduler.run_after(Duration.seconds(1.8), shared.shop.mark, {"label": "revoked"})
    shared.app.control.revoke(id)
    row = shared.end(id)

    assert row.state.kind == "canceled" and row.attempt == 0
    assert shared.marks("revoked") == []


@pytest.mark.parametrize("signal", ["SIGTERM", "SIGKILL"])
def test_terminating_a_running_action_cancels_its_row(fragile: Rig, signal: str) -> None:
    id = fragile.scheduler.run_after(NEAR, fragile.shop.slow_act, fragile.slow(signal, 60))
    fragile.marked(f"{signal} started")
    fragile.app.control.terminate(id, signal=signal)

    assert fragile.end(id).state.kind == "canceled"
    assert len(fragile.marks(f"{signal} started")) == 1 and fragile.marks(f"{signal} ended") == []
