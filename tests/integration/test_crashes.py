"""Whatever is killed: no job is lost, none runs twice, and the table tells the truth."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

from confect_celery import Duration, ScheduledFunction
from tests.integration.rig import Rig
from tests.support.processes import Valkey

NEAR = Duration.seconds(1)


def _tag(row: ScheduledFunction) -> str | None:
    return row.state.error.tag if row.state.error else None


def test_a_mutation_that_keeps_killing_its_worker_fails(fragile: Rig) -> None:
    id = fragile.scheduler.run_after(NEAR, fragile.shop.die, {"label": "die"})
    others = [
        fragile.scheduler.run_after(Duration.millis(1000 + 150 * n), fragile.shop.mark, {"label": "beside die"})
        for n in range(20)
    ]
    row = fragile.end(id)

    assert (row.state.kind, _tag(row), row.attempt) == ("failed", "WorkerLost", 3)
    assert {row.state.kind for row in fragile.ended(others)} == {"success"}
    assert len(fragile.marks("beside die")) == len(others)


def test_an_action_whose_child_is_killed_is_not_started_again(fragile: Rig) -> None:
    row = fragile.end(fragile.scheduler.run_after(NEAR, fragile.shop.act_and_die, {"label": "act and die"}))

    assert (row.state.kind, _tag(row), row.attempt) == ("failed", "WorkerLost", 1)
    assert len(fragile.marks("act and die")) == 1


def test_a_mutation_over_its_time_limit_fails(fragile: Rig) -> None:
    id = fragile.scheduler.run_after(NEAR, fragile.shop.never_ends, {"label": "never ends"})
    others = [fragile.scheduler.run_after(NEAR, fragile.shop.look, {"label": "beside never ends"}) for _ in range(5)]
    row = fragile.end(id)

    assert (row.state.kind, _tag(row)) == ("failed", "TimeLimitExceeded")
    assert row.completed_time is not None and row.completed_time >= row.scheduled_time + Duration.seconds(2)
    assert {row.state.kind for row in fragile.ended(others)} == {"success"}


def test_a_killed_worker_loses_nothing(new_rig: Callable[..., Rig]) -> None:
    it = new_rig(confect_redelivery=3)
    worker = it.worker()
    shop, run = it.shop, it.scheduler.run_after
    marks = [run(Duration.millis(1000 + 200 * n), shop.mark, {"label": f"kill {n}"}) for n in range(40)]
    action = run(NEAR, shop.slow_act, it.slow("killed", 300))
    mutations = [run(NEAR, shop.slow_mark, it.slow(f"slow {n}", 0.5)) for n in range(3)]
    it.marked("killed started")
    it.ended(marks[:2])
    worker.kill()
    left = [row for row in it.rows([*marks, *mutations]) if row.state.kind == "pending"]
    assert left and it.row(action).state.kind == "inProgress"
    worker.start()

    assert {row.state.kind for row in it.ended([*marks, *mutations], within=30)} == {"success"}
    row = it.end(action)
    assert (row.state.kind, _tag(row), row.attempt) == ("failed", "WorkerLost", 1)
    labels = [f"kill {n}" for n in range(40)] + [f"slow {n}" for n in range(3)] + ["killed started"]
    assert {label: len(it.marks(label)) for label in labels} == dict.fromkeys(labels, 1)
    assert it.marks("killed ended") == []


def test_a_cold_shutdown_loses_nothing(new_rig: Callable[..., Rig]) -> None:
    it = new_rig(confect_redelivery=3)
    worker = it.worker()
    action = it.scheduler.run_after(NEAR, it.shop.slow_act, it.slow("cold", 300))
    mark = it.scheduler.run_after(Duration.seconds(3), it.shop.mark, {"label": "after cold"})
    it.marked("cold started")
    os.kill(worker.pid, signal.SIGQUIT)
    worker.exit_code()
    worker.start()

    row = it.end(action)
    assert (row.state.kind, _tag(row), row.attempt) == ("failed", "WorkerLost", 1)
    assert it.end(mark).state.kind == "success"
    assert [len(it.marks(label)) for label in ("cold started", "cold ended", "after cold")] == [1, 0, 1]


def test_a_broker_that_comes_back_empty_loses_nothing(own_broker: Valkey, new_rig: Callable[..., Rig]) -> None:
    it = new_rig(own_broker.url, confect_redelivery=3)
    worker = it.worker()
    shop, run = it.shop, it.scheduler.run_after

    def supervise() -> None:
        if not worker.alive:  # Celery 5.7.0 ends when Redis restarts while it holds a message
            worker.start()

    published = [run(Duration.seconds(2), shop.mark, {"label": f"published {n}"}) for n in range(10)]
    waiting = [run(Duration.millis(2500 + 300 * n), shop.look, {"label": f"waiting {n}"}) for n in range(20)]
    own_broker.kill()
    unheard = run(NEAR, shop.mark, {"label": "unheard"})
    own_broker.start()
    ids = [*published, *waiting, unheard]

    assert {row.state.kind for row in it.ended(ids, within=40, meanwhile=supervise)} == {"success"}
    assert {len(it.marks(row.args["label"])) for row in it.rows(ids)} == {1}


def test_scheduling_does_not_wait_for_a_broker_that_is_down(own_broker: Valkey, new_rig: Callable[..., Rig]) -> None:
    it = new_rig(own_broker.url)
    own_broker.kill()
    before = time.monotonic()
    id = it.scheduler.run_after(NEAR, it.shop.mark, {"label": "down"})

    assert it.row(id).state.kind == "pending"
    assert time.monotonic() - before < 5
