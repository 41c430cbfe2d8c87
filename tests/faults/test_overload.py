"""Rows that nobody can run, and more jobs at once than the workers can take."""

from __future__ import annotations

import datetime as dt
import math
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from confect_celery import Duration, ScheduledFunction
from tests.faults.rig import Rig
from tests.support.processes import Valkey
from tests.support.waiting import wait_for

JOBS = int(os.environ.get("OVERLOAD_JOBS", "20000"))
"""How many jobs are due at one instant."""

REDELIVERY = max(2.0, JOBS / 2000)
"""Seconds; the backlog takes several times longer."""


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    valkey = Valkey(tmp_path_factory.mktemp("broker"))
    valkey.start()
    yield valkey
    valkey.end()


@pytest.fixture
def rig(tmp_path: Path, broker: Valkey, request: pytest.FixtureRequest) -> Iterator[Rig]:
    config = {"confect_horizon": 0.4, "confect_min_delay": 0.2, "confect_redelivery": REDELIVERY}
    it = Rig(tmp_path, broker.url, f"sqlite:///{tmp_path}/shop.db", config)
    it.shop.app.control.purge()
    yield it
    it.close()
    for worker in it.workers:
        print(f"----- {worker.log.name}\n{worker.output()[-6000:]}")


def _execute(rig: Rig, sql: str, **values: Any) -> list[Any]:
    with rig.confect.store.database.engine.begin() as connection:
        result = connection.execute(sa.text(sql), values)
        return list(result) if result.returns_rows else []


def _left(rig: Rig) -> int:
    return int(_execute(rig, "SELECT count(*) FROM _scheduled_functions WHERE next_at IS NOT NULL")[0][0])


BROKEN: dict[str, tuple[str, dict[str, str], str, str | None]] = {
    "args are not JSON": ("mutation", {"args": "{broken"}, "failed", "Unreadable"),
    "options are not JSON": ("plain", {"options": "{broken"}, "failed", "Unreadable"),
    "options are a list": ("plain", {"options": "[1, 2]"}, "failed", "Unpublishable"),
    "args of a task are a string": ("plain", {"args": '"x"'}, "failed", "Unpublishable"),
    "args by position are a number": ("plain", {"options": '{"args": 5}'}, "failed", "Unpublishable"),
    "no such serializer": ("plain", {"options": '{"serializer": "nonesuch"}'}, "failed", "Unpublishable"),
    "headers are a list": ("plain", {"options": '{"headers": [1]}'}, "failed", "Unpublishable"),
    "args of a function are a list": ("mutation", {"args": "[1]"}, "failed", "Unpublishable"),
    "a kind that does not exist": ("plain", {"kind": "nonsense"}, "failed", "TypeError"),
    "a name with control characters": ("plain", {"name": "faults.\x01\n\x7f"}, "failed", "UnknownFunction"),
}


@pytest.mark.timeout(90)
def test_rows_that_cannot_be_run_fail_and_the_others_go_on(rig: Rig) -> None:
    run, functions = rig.confect.scheduler.run_after, rig.shop.FUNCTIONS
    broken = {}
    for number, (what, (kind, columns, *_)) in enumerate(BROKEN.items()):
        id = broken[what] = run(Duration.seconds(1), functions[kind], {"job": f"broken-{number}"})
        for column, value in columns.items():
            _execute(rig, f"UPDATE _scheduled_functions SET {column} = :value WHERE id = :id", value=value, id=id)  # noqa: S608
    others = [run(Duration.seconds(1), functions["mutation"], {"job": f"other-{number}"}) for number in range(20)]
    worker = rig.worker("--pool", "prefork", "--concurrency", "1")

    wait_for(lambda: not _left(rig), within=60, what="all rows to end")
    rows = rig.rows()
    ends = {what: (rows[id].state.kind.value, _tag(rows[id])) for what, id in broken.items()}
    assert ends == {what: (kind, tag) for what, (_, _, kind, tag) in BROKEN.items()}
    assert {rows[id].state.kind.value for id in others} == {"success"}
    assert "cannot be read" in worker.output() and "No message can be made" in worker.output()


def _tag(row: ScheduledFunction) -> str | None:
    return row.state.error.tag if row.state.error else None


@pytest.mark.timeout(900)
@pytest.mark.parametrize("hours", [0, 12], ids=["at one instant", "after an outage of 12 hours"])
def test_a_backlog_drains_beside_new_jobs_and_the_queue_does_not_grow(rig: Rig, hours: int) -> None:
    action = rig.shop.FUNCTIONS["action"]
    for start in range(0, JOBS, 1000):
        jobs = [(Duration.seconds(1), action, {"job": f"job-{n}"}) for n in range(start, min(start + 1000, JOBS))]
        rig.confect.scheduler.run_many(jobs)
    if hours:
        past = (dt.datetime.now(dt.UTC) - dt.timedelta(hours=hours)).strftime("%Y-%m-%d %H:%M:%S.%f")
        _execute(rig, "UPDATE _scheduled_functions SET scheduled_time = :past, next_at = :past", past=past)
    rig.worker("--pool", "prefork", "--concurrency", "2", "--without-gossip")
    new = []

    def drained() -> bool:
        if len(new) < 50:
            new.append(rig.confect.scheduler.run_after(Duration.seconds(1), action, {"job": f"new-{len(new)}"}))
        return not _left(rig)

    began = time.monotonic()
    wait_for(drained, within=800, what="the backlog to drain")
    seconds = time.monotonic() - began
    sums = "SELECT state, count(*), sum(deliveries), max(deliveries) FROM _scheduled_functions GROUP BY state"
    counts = _execute(rig, sums)
    state, rows, published, most = counts[0]
    print(f"{rows} rows in {seconds:.0f} s, {published} messages, at most {most} of one row")
    assert (state, len(counts), rows) == ("success", 1, JOBS + len(new))
    assert {len(events) for events in rig.ledger().values()} == {2}
    # Each wait for a message is twice the last: a queue that takes long gets few duplicates, not ever more.
    assert most <= 2 + math.ceil(math.log2(1 + seconds / REDELIVERY))
