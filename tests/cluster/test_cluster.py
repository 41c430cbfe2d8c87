"""Jobs through the public API on Redis and on RabbitMQ, whatever of the cluster is killed or restarted."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from pytest_celery import CeleryTestSetup

from confect_celery import Duration
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


def test_jobs_run_once_under_the_ids_of_their_rows(cluster: CeleryTestSetup, rig: Rig) -> None:
    shop = rig.shop
    ids = [rig.schedule(shop.mark, "near", NEAR), rig.schedule(shop.mark, "far", FAR)]
    ids += [rig.schedule(shop.plain_mark, "plain near", NEAR), rig.schedule(shop.plain_mark, "plain far", FAR)]
    sooner, later = rig.schedule(shop.mark, "sooner", Duration.hours(1)), rig.schedule(shop.mark, "later", NEAR)
    cancelled = [rig.schedule(shop.mark, f"cancelled {n}", Duration.seconds(n)) for n in (1, 3)]
    assert all(rig.scheduler.cancel(id) for id in cancelled) and not rig.scheduler.cancel(cancelled[0])
    assert rig.scheduler.reschedule(sooner, NEAR) and rig.scheduler.reschedule(later, FAR)
    _ran_once(rig, [*ids, sooner, later])
    wait_for(lambda: f"[{cancelled[0]}] received" in cluster.worker.logs(), what="the message of a cancelled one")

    for row in rig.rows([*ids, sooner, later]):
        assert rig.mark(row.args["label"]).at * 1_000_000 >= row.scheduled_time.epoch_micros
        assert cluster.app.AsyncResult(row.id).get(timeout=10) is None
        assert cluster.worker.logs().count(f"[{row.id}] received") == (2 if row.id == later else 1)
    assert {row.state.kind for row in rig.rows(cancelled)} == {"canceled"}
    assert not [mark for mark in rig.marks() if mark.label.startswith("cancelled")]
    inspected = cluster.app.control.inspect([cluster.worker.hostname()]).registered()
    assert "internal/test/mark" in inspected[cluster.worker.hostname()]


@pytest.mark.parametrize("config", [{"confect_redelivery": 3}], indirect=True, ids=[""])
def test_a_killed_worker(cluster: CeleryTestSetup, rig: Rig) -> None:
    ids = [rig.schedule(rig.shop.mark, f"job {n}", Duration.millis(1000 + 100 * n)) for n in range(15)]
    rig.mark("job 1")
    cluster.worker.kill()
    assert cluster.worker.container.status == "exited"
    assert any(row.state.kind == "pending" for row in rig.rows(ids))
    cluster.worker.restart()

    _ran_once(rig, ids)


@pytest.mark.parametrize("config", [{"confect_redelivery": 3}], indirect=True, ids=[""])
def test_a_broker_that_restarts_under_its_worker(cluster: CeleryTestSetup, rig: Rig) -> None:
    published = [rig.schedule(rig.shop.mark, f"published {n}", Duration.seconds(1.9)) for n in range(5)]
    waiting = [rig.schedule(rig.shop.mark, f"waiting {n}", Duration.millis(2500 + 200 * n)) for n in range(12)]
    cluster.broker.kill()
    unheard = [rig.schedule(rig.shop.mark, f"unheard {n}", NEAR) for n in range(2)]
    cluster.broker.restart()

    _ran_once(rig, [*published, *waiting, *unheard], 45, lambda: _supervise(cluster))


# RabbitMQ kept the very messages: nothing has to be published again. Redis has none left.
@pytest.mark.parametrize("config", [{"confect_redelivery": {"rabbitmq": 300, "redis": 3}}], indirect=True, ids=[""])
def test_a_broker_that_restarts_with_messages_in_it(cluster: CeleryTestSetup, rig: Rig) -> None:
    cluster.worker.kill()
    ids = [rig.schedule(rig.shop.mark, f"job {n}", NEAR) for n in range(5)]
    cluster.broker.restart()
    cluster.worker.restart()

    _ran_once(rig, ids)
