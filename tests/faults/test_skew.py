"""Hosts whose clocks differ agree on what is due, for the database's clock is the one that counts."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from confect_celery import Duration
from confect_celery.store.clock import DatabaseClock
from confect_celery.store.database import Database
from tests.faults import skew
from tests.faults.proxy import Proxy
from tests.faults.rig import Rig
from tests.support.databases import Databases, skip_or_fail
from tests.support.processes import ROOT, Valkey
from tests.support.waiting import wait_for

AHEAD = 5.0
FAR_AHEAD = 60.0
"""So much that no load makes a job as late as the clock that its worker would wait for."""
JOBS = 200
CONFIG = {"confect_min_delay": 0.2, "confect_redelivery": 3}
TOLERANCE = 0.05
"""Seconds: a process knows the database's time to a round trip, which takes longer on a loaded machine."""


@pytest.fixture
def rig(request: pytest.FixtureRequest, tmp_path: Path, databases: Databases) -> Iterator[Rig]:
    reason = skew.missing()
    if reason is not None:
        skip_or_fail(reason)
    broker = Valkey(tmp_path)
    broker.start()
    with databases.url("postgresql", tmp_path) as url:
        it = Rig(tmp_path, broker.url, url, CONFIG | getattr(request, "param", {}))
        yield it
        it.close()
    broker.end()
    for worker in it.workers:
        print(f"----- {worker.log.name}\n{worker.output()[-6000:]}")


@pytest.mark.timeout(120)
def test_nothing_starts_early_nor_twice_and_no_lease_is_judged_by_a_wrong_clock(rig: Rig) -> None:
    workers = {
        queue: rig.worker("--pool", "prefork", "--concurrency", "4", "--queues", f"celery,{queue}", ahead=seconds)
        for queue, seconds in (("ahead", AHEAD), ("behind", -AHEAD))
    }
    scheduler, functions = rig.confect.scheduler, (rig.shop.mutation, rig.shop.action)
    calls = [
        (Duration.seconds(1.5 + 5 * number / JOBS), functions[number % 2], {"job": f"job-{number}"})
        for number in range(JOBS)
    ]
    jobs = {id: f"job-{number}" for number, id in enumerate(scheduler.run_many(calls))}
    slow = {f"slow-{queue}-{number}": queue for queue in workers for number in range(2)}
    # These run longer than a lease lasts, which the worker that runs one renews and both judge.
    for job, queue in slow.items():
        call = rig.shop.plain.s(job, 4.5).set(queue=queue)
        jobs[scheduler.run_after(Duration.seconds(6.6), call)] = job
    wait_for(lambda: all(row.state.kind.terminal for row in rig.rows().values()), within=60, what="the rows to end")

    rows, ledger, effects = rig.rows(), rig.ledger(), rig.effects()
    states = {(row.state.kind, row.state.error and row.state.error.tag) for row in rows.values()}
    assert states == {("success", None)} and rows.keys() == jobs.keys()
    assert {tuple(event for _, event in events) for events in ledger.values()} == {("start", "end")}
    assert effects == {f"job-{number}": 1 for number in range(0, JOBS, 2)}
    lags = sorted(ledger[jobs[id]][0][0] - row.scheduled_time.to_utc().timestamp() for id, row in rows.items())
    print(f"lag: least {lags[0]:.4f} s, median {lags[len(lags) // 2]:.4f} s, greatest {lags[-1]:.4f} s")
    assert lags[0] >= -TOLERANCE
    for queue, seconds in (("ahead", -AHEAD), ("behind", AHEAD)):
        found = re.findall(r"This host's clock is off by (-?[\d.]+)s", workers[queue].output())
        assert found and all(float(each) == pytest.approx(seconds, abs=1) for each in found)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("rig", [{"confect_redelivery": 600}], indirect=True)
@pytest.mark.parametrize("ahead", [-FAR_AHEAD, FAR_AHEAD])
def test_a_worker_with_a_wrong_clock_holds_messages_by_the_databases(rig: Rig, ahead: float) -> None:
    """Celery's own timer goes by the host's clock: a minute late where that is behind, and where it is ahead the
    message would come to the gate too early, again and again."""
    worker = rig.worker("--pool", "prefork", "--concurrency", "2", ahead=ahead)
    functions = (rig.shop.mutation, rig.shop.action, rig.shop.plain)
    calls = [(Duration.seconds(1.5), functions[number % 3], {"job": f"job-{number}"}) for number in range(12)]
    ids = rig.confect.scheduler.run_many(calls)
    wait_for(
        lambda: all(row.state.kind.terminal for row in rig.rows().values()),
        within=FAR_AHEAD / 2,
        what="the rows to end, long before the worker's clock would have it",
    )
    rows, ledger = rig.rows(), rig.ledger()
    assert {row.state.kind for row in rows.values()} == {"success"} and rows.keys() == set(ids)
    for number, id in enumerate(ids):
        (start, _), (_, event) = ledger[f"job-{number}"]
        assert event == "end" and start >= rows[id].scheduled_time.to_utc().timestamp() - TOLERANCE
    assert "off by" in worker.output()


@pytest.mark.parametrize("ahead", [-60, 60])
def test_a_host_with_a_wrong_clock_schedules_by_the_databases(rig: Rig, ahead: float) -> None:
    code = """
import time
from confect_celery import Duration
from tests.faults import shop
print(time.time() - shop.now())
shop.confect.scheduler.run_after(Duration.seconds(30), shop.action, {"job": "scheduled"})
"""
    before = rig.shop.now()
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **rig.env, **skew.environment(ahead), "PYTHONPATH": str(ROOT)},
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    after = rig.shop.now()

    assert float(done.stdout) == pytest.approx(ahead, abs=1)
    (row,) = rig.rows().values()
    assert before + 30 - TOLERANCE <= row.scheduled_time.to_utc().timestamp() <= after + 30 + TOLERANCE
    assert before - TOLERANCE <= row.creation_time.to_utc().timestamp() <= after + TOLERANCE


def test_a_stalled_connection_does_not_set_the_clock_wrong(rig: Rig) -> None:
    database = rig.confect.store.database
    port = database.engine.url.port
    assert port is not None
    proxy = Proxy(port)
    away = Database(database.engine.url.set(port=proxy.port).render_as_string(hide_password=False))
    try:
        assert _outside(DatabaseClock(away), rig) < TOLERANCE  # and a connection is open from now on
        proxy.stall()
        threading.Timer(2, proxy.flow).start()
        assert _outside(DatabaseClock(away), rig) < TOLERANCE
    finally:
        away.dispose()
        proxy.close()


def test_a_clock_that_is_set_under_a_running_process_does_not_set_ours(rig: Rig, tmp_path: Path) -> None:
    code = """
import pathlib, sys
from tests.faults import shop, skew
clock, step = shop.confect.clock, pathlib.Path(sys.argv[1])
clock.now()
print(skew.outside(clock, shop.now))
step.write_text("+3s")
clock.now()
print(skew.outside(clock, shop.now))
"""
    step = tmp_path / "step"
    step.write_text("+0s")
    wrong = {key: value for key, value in skew.environment(1).items() if key != "FAKETIME"}
    done = subprocess.run(
        [sys.executable, "-c", code, str(step)],
        env={**os.environ, **rig.env, **wrong, "FAKETIME_TIMESTAMP_FILE": str(step), "FAKETIME_NO_CACHE": "1",
             "PYTHONPATH": str(ROOT)},
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    before, after = map(float, done.stdout.split())
    assert before < TOLERANCE and after < TOLERANCE


def _outside(clock: DatabaseClock, rig: Rig) -> float:
    clock.now()  # it asks the database
    return skew.outside(clock, rig.shop.now)
