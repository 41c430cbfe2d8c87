"""Jobs through the public API on Redis and on RabbitMQ, whatever of the cluster is killed or restarted."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from pytest_celery import CeleryTestSetup

from confect_celery import DateTime, Duration
from tests.brokers.rig import Rig
from tests.support.waiting import wait_for

NEAR, FAR = Duration.seconds(1), Duration.seconds(3)


def _ran_once(rig: Rig, ids: list[str], within: float = 30.0, meanwhile: Callable[[], object] = lambda: None) -> None:
    def ended() -> bool:
        meanwhile()
        return all(row.state.kind.terminal for row in rig.rows(ids))

    wait_for(ended, within=within, what=f"the end of {len(ids)} rows")
    rows = rig.succeeded(ids)
    counts = {row.args["label"]: sum(mark.label == row.args["label"] for mark in rig.marks()) for row in rows}
    assert counts == dict.fromkeys(counts, 1) and len(counts) == len(ids)


def _supervise(cluster: CeleryTestSetup) -> None:
    """Celery 5.7.0 ends when Redis restarts while it holds a message; a shop's supervisor starts it again."""
    if cluster.worker.container.status == "exited":
        cluster.worker.restart()


def test_a_job_runs_once_under_the_id_of_its_row(cluster: CeleryTestSetup, rig: Rig) -> None:
    ids = [rig.schedule(rig.shop.mark, "near", NEAR), rig.schedule(rig.shop.mark, "far", FAR)]
    plain = [rig.schedule(rig.shop.plain_mark, "plain near", NEAR), rig.schedule(rig.shop.plain_mark, "plain far", FAR)]
    _ran_once(rig, [*ids, *plain])

    for row in rig.rows([*ids, *plain]):
        assert rig.mark(row.args["label"]).at * 1_000_000 >= row.scheduled_time.epoch_micros
        assert cluster.app.AsyncResult(row.id).get(timeout=10) is None
        assert cluster.worker.logs().count(f"[{row.id}] received") == 1
    inspected = cluster.app.control.inspect([cluster.worker.hostname()]).registered()
    assert "internal/test/mark" in inspected[cluster.worker.hostname()]


def test_cancelled_and_rescheduled(cluster: CeleryTestSetup, rig: Rig) -> None:
    cancelled = [rig.schedule(rig.shop.mark, f"cancelled {n}", Duration.seconds(n)) for n in (1, 3)]
    sooner = rig.schedule(rig.shop.mark, "sooner", Duration.hours(1))
    later = rig.schedule(rig.shop.mark, "later", NEAR)
    assert all(rig.scheduler.cancel(id) for id in cancelled) and not rig.scheduler.cancel(cancelled[0])
    assert rig.scheduler.reschedule(sooner, NEAR) and rig.scheduler.reschedule(later, FAR)
    _ran_once(rig, [sooner, later])
    wait_for(lambda: f"[{cancelled[0]}] received" in cluster.worker.logs(), what="the message of the cancelled one")
    wait_for(lambda: DateTime.now() > rig.row(cancelled[1]).scheduled_time, what="its time")

    assert {row.state.kind for row in rig.rows(cancelled)} == {"canceled"}
    assert rig.mark("later").at * 1_000_000 >= rig.row(later).scheduled_time.epoch_micros
    assert sorted(mark.label for mark in rig.marks()) == ["later", "sooner"]


@pytest.mark.parametrize("config", [{"confect_redelivery": 4}], indirect=True, ids=[""])
def test_a_killed_worker(cluster: CeleryTestSetup, rig: Rig) -> None:
    ids = [rig.schedule(rig.shop.mark, f"job {n}", Duration.millis(1000 + 150 * n)) for n in range(20)]
    rig.mark("job 2")
    cluster.worker.kill()
    assert cluster.worker.container.status == "exited"
    assert any(row.state.kind == "pending" for row in rig.rows(ids))
    cluster.worker.restart()

    _ran_once(rig, ids)


@pytest.mark.parametrize("config", [{"confect_redelivery": 4}], indirect=True, ids=[""])
def test_a_broker_that_restarts_under_its_worker(cluster: CeleryTestSetup, rig: Rig) -> None:
    published = [rig.schedule(rig.shop.mark, f"published {n}", Duration.seconds(1.9)) for n in range(5)]
    waiting = [rig.schedule(rig.shop.mark, f"waiting {n}", Duration.millis(2500 + 300 * n)) for n in range(15)]
    cluster.broker.kill()
    unheard = [rig.schedule(rig.shop.mark, f"unheard {n}", NEAR) for n in range(2)]
    cluster.broker.restart()

    _ran_once(rig, [*published, *waiting, *unheard], 45, lambda: _supervise(cluster))


# RabbitMQ kept the very messages: nothing has to be published again. Redis has none left.
@pytest.mark.parametrize("config", [{"confect_redelivery": {"rabbitmq": 300, "redis": 4}}], indirect=True, ids=[""])
def test_a_broker_that_restarts_with_messages_in_it(cluster: CeleryTestSetup, rig: Rig) -> None:
    cluster.worker.kill()
    ids = [rig.schedule(rig.shop.mark, f"job {n}", NEAR) for n in range(5)]
    cluster.broker.restart()
    cluster.worker.restart()

    _ran_once(rig, ids)
