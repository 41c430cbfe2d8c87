"""Rows that nobody can run, and more jobs at once than the workers can take."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from confect_celery import DateTime, Duration, ScheduledFunction
from tests.faults.rig import Rig
from tests.support.databases import PostgresServer, open_directory
from tests.support.processes import Valkey
from tests.support.waiting import wait_for

JOBS = int(os.environ.get("OVERLOAD_JOBS", "6000"))
"""How many jobs are due at one instant."""

REDELIVERY = 3.0
"""Seconds; the backlog takes longer. It is the lease of an action as well, whose end waits for SQLite's one writer."""

WINDOWS = 2 * 1500
"""Two dispatchers have two and a half batches of 500 on their way each, and what has just become due."""


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


@pytest.fixture
def flooded(tmp_path: Path, broker: Valkey, request: pytest.FixtureRequest) -> Iterator[Rig]:
    """A shop without rows and workers. A message counts as lost before the backlog is through."""
    with ExitStack() as stack:
        url = f"sqlite:///{tmp_path}/shop.db"
        if request.param == "postgresql":
            server = PostgresServer(open_directory())
            server.start()
            stack.callback(server.stop)
            url = server.url()
        it = Rig(tmp_path, broker.url, url, {"confect_redelivery": REDELIVERY, "confect_horizon": 0.5})
        stack.callback(it.close)
        it.shop.app.control.purge()
        yield it
        for worker in it.workers:
            print(f"----- {worker.log.name}\n{worker.output()[-4000:]}")


@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    ("flooded", "kind", "hours"),
    [
        ("sqlite", "mutation", 0),
        ("postgresql", "action", 0),
        ("sqlite", "action", 12),
        ("postgresql", "mutation", 12),
    ],
    indirect=["flooded"],
)
def test_a_backlog_drains_beside_new_jobs_and_nothing_is_sent_twice(flooded: Rig, hours: int, kind: str) -> None:
    rig, run = flooded, flooded.shop.FUNCTIONS[kind]
    now = DateTime.now()
    spread = Duration.hours(hours) / JOBS
    rig.confect.scheduler.run_many([(now - spread * (JOBS - n), run, {"job": f"job-{n}"}) for n in range(JOBS)])
    if hours:  # as it is after an outage: what is scheduled anew is due in a second at the earliest
        _execute(rig, "UPDATE _scheduled_functions SET next_at = scheduled_time")
    began = time.monotonic()
    for _ in range(2):
        rig.worker("--pool", "prefork", "--concurrency", "2", "--without-gossip", ready=False)
    new: dict[str, float] = {}
    handed: list[int] = []

    def drained() -> bool:
        job = f"new-{len(new)}"
        rig.confect.scheduler.run_after(Duration.seconds(1), run, {"job": job})
        new[job] = time.time() + 1
        handed.append(_handed_over(rig))
        return not _left_of_backlog(rig)

    wait_for(drained, within=1700, what="the backlog to drain")
    seconds = time.monotonic() - began
    wait_for(lambda: not _left(rig), within=60, what="the new jobs to end")

    states = _execute(rig, "SELECT state, count(*) FROM _scheduled_functions GROUP BY state")
    ledger = rig.ledger()
    first = min(events[0][0] for events in ledger.values())
    lags = sorted(ledger[job][0][0] - due for job, due in new.items() if due > first)
    output = "".join(worker.output() for worker in rig.workers)
    again, dropped = output.count("republished "), output.count("Dropped a message of")
    print(
        f"{JOBS} rows in {seconds:.1f} s, {again} sent again, {dropped} duplicates dropped; {len(new)} new jobs "
        f"meanwhile: late by {lags[len(lags) // 2]:.2f} s at the median, {lags[-1]:.2f} s at most; "
        f"{max(handed)} rows were on their way at most"
    )
    assert [tuple(state) for state in states] == [("success", JOBS + len(new))]
    assert {tuple(event for _, event in events) for events in ledger.values()} == {("start", "end")}
    if hours:  # what has just become due goes out, whatever waits
        assert max(handed) < WINDOWS, "the backlog waits in the broker, and new jobs behind it"
    assert again <= JOBS / 20 and dropped <= JOBS / 100
    assert seconds > REDELIVERY, "else no message could have counted as lost"
    assert lags[-1] < max(10.0, seconds / 2), "new jobs starved"
    if hours:
        started = [ledger[f"job-{n}"][0][0] for n in range(JOBS)]
        # Each dispatcher sends in order; that they and their workers are not equally quick blurs it a little.
        middles = [statistics.median(started[n : n + JOBS // 4]) for n in range(0, JOBS, JOBS // 4)]
        assert middles == sorted(middles), "the oldest first"


@pytest.mark.timeout(120)
@pytest.mark.parametrize("flooded", ["sqlite", "postgresql"], indirect=True)
def test_what_nobody_takes_waits_in_the_table_and_holds_up_nobody(flooded: Rig) -> None:
    rig, now = flooded, DateTime.now()
    lame, quick = rig.shop.FUNCTIONS["plain"], rig.shop.FUNCTIONS["action"]
    jobs, spread = 5000, Duration.hours(1) / 5000
    rig.confect.scheduler.run_many(
        [(now - spread * (jobs - n), lame if n % 5 < 4 else quick, {"job": f"job-{n}"}) for n in range(jobs)]
    )
    elsewhere = """options = '{"queue": "elsewhere"}'"""
    _execute(rig, "UPDATE _scheduled_functions SET next_at = scheduled_time")
    _execute(rig, f"UPDATE _scheduled_functions SET {elsewhere} WHERE name = 'faults.plain'")  # noqa: S608
    rig.worker("--pool", "prefork", "--concurrency", "2")

    ended = "SELECT count(*) FROM _scheduled_functions WHERE state = 'success'"
    wait_for(lambda: _execute(rig, ended)[0][0] == jobs / 5, within=60, what="the quick ones to end")
    # While nobody begins any, a batch of them goes out each second: a slow start may take some.
    assert _handed_over(rig) < jobs * 4 / 5 * 0.9, "the others went to the broker, whose queue nobody reads"
    assert set(rig.ledger()) == {f"job-{n}" for n in range(jobs) if n % 5 >= 4}


def _handed_over(rig: Rig) -> int:
    """How many rows have a message that has not been begun."""
    sql = "SELECT count(*) FROM _scheduled_functions WHERE state = 'pending' AND next_at IS NOT NULL AND deliveries > 0"
    return int(_execute(rig, sql)[0][0])


def _left_of_backlog(rig: Rig) -> int:
    sql = "SELECT count(*) FROM _scheduled_functions WHERE next_at IS NOT NULL AND CAST(args AS VARCHAR(100)) LIKE :job"
    return int(_execute(rig, sql, job='%"job-%')[0][0])
