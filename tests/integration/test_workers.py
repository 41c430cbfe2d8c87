"""Workers of every kind: other code, other pools, two at once, wrongly set up, shut down."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from confect_celery import Duration
from tests.integration.rig import Rig
from tests.support.processes import Worker
from tests.support.waiting import wait_for

NEAR = Duration.seconds(1)


def test_rows_outlive_the_code_that_wrote_them(new_rig: Callable[..., Rig]) -> None:
    rig = new_rig()
    shop, run = rig.shop, rig.scheduler.run_after
    gone = [run(delay, shop.gone, {"label": "gone"}) for delay in (NEAR, Duration.seconds(3))]
    changed = [run(delay, shop.changed, {"label": "changed"}) for delay in (NEAR, Duration.seconds(3))]
    others = [run(Duration.millis(1000 + 100 * n), shop.mark, {"label": "others"}) for n in range(25)]
    rig.worker(TEST_WITHOUT="gone,changed")

    assert {row.state.kind for row in rig.ended(others)} == {"success"}
    assert len(rig.marks("others")) == len(others)
    for row in rig.ended(gone):
        assert row.state.kind == "failed" and row.state.error is not None
        assert row.state.error.tag == "UnknownFunction" and "internal/test/gone" in row.state.error.message
    for row in rig.ended(changed):
        assert row.state.kind == "failed" and row.state.error is not None
        assert row.state.error.tag == "InvalidArguments" and "number: Field required" in row.state.error.message
        assert row.state.error.data is not None and row.state.error.data["function"] == "internal/test/changed"


@pytest.mark.parametrize("pool", ["threads", "solo"])
def test_other_pools_run_jobs_as_well(new_rig: Callable[..., Rig], pool: str) -> None:
    rig = new_rig()
    worker = rig.worker("--pool", pool, "--concurrency", "2")
    shop, run = rig.shop, rig.scheduler.run_after
    marks = [run(Duration.millis(1000 + 100 * n), shop.mark, {"label": "pool"}) for n in range(25)]
    act = run(NEAR, shop.slow_act, rig.slow("act", 0.3))
    raising = [run(NEAR, shop.mark_and_raise, {"label": "a"}), run(NEAR, shop.act_and_raise, {"label": "b"})]
    task = run(NEAR, shop.flaky, {"label": "flaky", "failures": 1})
    cancelled = run(NEAR, shop.mark, {"label": "cancelled"})
    rig.publish(rig.delivery(act), 3)
    assert rig.scheduler.cancel(cancelled)

    assert {row.state.kind for row in rig.ended([*marks, act, task])} == {"success"}
    assert {row.state.kind for row in rig.ended(raising)} == {"failed"}
    wait_for(lambda: rig.dropped(act) == 3 and rig.dropped(cancelled), what="the others to be dropped")
    counted = {label: len(rig.marks(label)) for label in ("pool", "act started", "flaky", "a", "b", "cancelled")}
    assert counted == {"pool": 25, "act started": 1, "flaky": 2, "a": 0, "b": 1, "cancelled": 0}
    assert f"The {pool.removesuffix('s')} pool has no time limits" in worker.output()


def test_two_dispatchers_publish_each_job_once(new_rig: Callable[..., Rig]) -> None:
    rig = new_rig(confect_batch_size=7, confect_batch=1, confect_redelivery=30)
    workers = [rig.worker(start=False), rig.worker(start=False)]
    with ThreadPoolExecutor() as at_once:
        list(at_once.map(Worker.start, workers))
    jobs = [(Duration.millis(1500 + 20 * n), rig.shop.mark, {"label": f"two {n}"}) for n in range(100)]
    ids = rig.scheduler.run_many(jobs)

    assert {row.state.kind for row in rig.ended(ids, within=30)} == {"success"}
    for _, _, args in jobs:
        assert len(rig.marks(args["label"])) == 1
    assert all(rig.received(id) == 1 for id in ids)
    assert all(worker.output().count(" succeeded in ") for worker in workers)


@pytest.mark.parametrize(
    ("env", "said"),
    [
        ({"TEST_CONFIG": '{"confect_horizn": 3}'}, "confect_horizn: no such setting, did you mean confect_horizon?"),
        ({"TEST_WITH": "mailer"}, "Parameter 'mailer' of 'internal/test/send'"),
    ],
    ids=["unknown setting", "unknown service"],
)
def test_a_worker_that_is_set_up_wrongly_does_not_start(
    new_rig: Callable[..., Rig], env: dict[str, str], said: str
) -> None:
    worker = new_rig().worker("--pool", "solo", start=False, **env)
    with pytest.raises(AssertionError, match="the worker ended at once"):
        worker.start()

    assert worker.exit_code() != 0
    assert said in worker.output() and " ready." not in worker.output()


def test_a_warm_shutdown_gives_back_what_it_held(new_rig: Callable[..., Rig]) -> None:
    # Were they not given back, they would be found after a minute. Who schedules publishes what is due within 6.3 s.
    rig = new_rig(confect_horizon=14, confect_poll_interval=7, confect_redelivery=60)
    first = rig.worker()
    sent = rig.scheduler.run_after(Duration.seconds(6), rig.shop.mark, {"label": "sent"})
    held = rig.scheduler.run_after(Duration.seconds(8), rig.shop.mark, {"label": "held"})
    wait_for(lambda: rig.row(held).next_at != rig.row(held).scheduled_time, what="the dispatcher to hold one")
    wait_for(lambda: rig.received(sent), what="the worker to hold the other")
    first.stop()
    assert rig.row(held).next_at == rig.row(held).scheduled_time
    rig.worker()
    ready = time.time()

    for row, label in zip(rig.ended([sent, held], within=15), ("sent", "held"), strict=True):
        assert row.state.kind == "success"
        [at] = rig.marks(label)
        due = row.scheduled_time.epoch_micros / 1_000_000
        assert due <= at <= max(due, ready) + 3
