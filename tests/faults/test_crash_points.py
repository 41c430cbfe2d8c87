"""A process is killed at every seam: no job is lost, no mutation's effect doubles, no action starts twice.

Each job has a seam of its own. Where the pool's child dies all jobs share one worker; where the whole worker dies they
come one after the other, and a supervisor starts it again.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from confect_celery import Duration, ScheduledFunction
from tests.faults.rig import Rig
from tests.support.processes import ROOT, Valkey
from tests.support.waiting import wait_for

Step = tuple[str, str]
Case = tuple[str, tuple[Step, ...]]

CONFIG = {
    "confect_horizon": 0.4,
    "confect_min_delay": 0.2,
    "confect_redelivery": 2,
    "broker_transport_options": {"visibility_timeout": 20},
}

DISPATCHER = ("claim_due after", "claim_due committed", "publish before", "publish after")
CLAIM = ("start before", "start after", "start committed", "function started")
END = ("function ended", "succeed_running before", "succeed_running after", "succeed_running committed")
IN_THE_CHILD = {
    "mutation": (
        "load after", "function started", "function ended", "succeed_pending before", "succeed_pending after",
        "succeed_pending committed",
    ),
    "action": ("load after", *CLAIM, *END),
    "plain": (*CLAIM, *END),
    "retrying": (*CLAIM, "retry before", "retry after", "retry committed", *END),
    "late": (*CLAIM, *END),
}  # fmt: skip
ACK = ("ack before", "ack after")
WHEN = ("before", "after", "committed")

CHILD: list[Case] = [(kind, ((seam, "child"),)) for kind, seams in IN_THE_CHILD.items() for seam in seams]
WHOLE: list[Case] = [
    *((kind, ((seam, "whole"),)) for kind, seam in zip(IN_THE_CHILD, (*DISPATCHER, "publish before"), strict=True)),
    *((kind, ((seam, "whole"),)) for kind in IN_THE_CHILD for seam in ACK),
    *(
        (kind, ((seam, "whole"),))
        for kind, seams in IN_THE_CHILD.items()
        for seam in seams
        if "before" not in seam and (kind != "retrying" or "retry" in seam)
    ),
    # The reconciler dies while it records the death of a child, or of another worker.
    *(("action", (("start committed", "child"), (f"fail_running {when}", "whole"))) for when in WHEN),
    *(("mutation", (("function ended", "child"), (f"lose {when}", "whole"))) for when in WHEN),
    *(("late", (("start committed", "child"), (f"requeue {when}", "whole"))) for when in WHEN),
    *(("plain", (("start committed", "whole"), (f"bury {when}", "whole"))) for when in WHEN),
]

# Once these are committed the function counts as started: what may start but once then ends as WorkerLost.
LOST_AFTER = (
    "start committed",
    "function started",
    "function ended",
    "succeed_running before",
    "succeed_running after",
)


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    valkey = Valkey(tmp_path_factory.mktemp("broker"))
    valkey.start()
    yield valkey
    valkey.end()


@pytest.fixture
def rig(tmp_path: Path, broker: Valkey) -> Iterator[Rig]:
    it = Rig(tmp_path, broker.url, f"sqlite:///{tmp_path}/shop.db", CONFIG, crash=True)
    it.shop.app.control.purge()
    yield it
    it.close()
    for worker in it.workers:
        print(f"----- {worker.log.name}\n{worker.output()[-6000:]}")


def _schedule(rig: Rig, cases: list[Case], delay: float = 1.0) -> dict[str, Case]:
    """Beyond the horizon, so that the plan stands before a dispatcher sees the row."""
    planned = {}
    for number, case in enumerate(cases):
        job = {"job": f"{case[0]}-{len(rig.rows())}-{number}"}
        planned[str(rig.confect.scheduler.run_after(Duration.seconds(delay), rig.shop.FUNCTIONS[case[0]], job))] = case
    plan = rig.directory / "plan.json"
    before = json.loads(plan.read_text()) if plan.exists() else {}
    fresh = plan.with_suffix(".new")
    fresh.write_text(json.dumps(before | {id: steps for id, (_, steps) in planned.items()}))
    fresh.replace(plan)
    return planned


def _ended(rig: Rig, ids: object, within: float) -> dict[str, ScheduledFunction]:
    def all_terminal() -> dict[str, ScheduledFunction] | None:
        rig.supervise()
        rows = rig.rows()
        return rows if all(rows[id].state.kind.terminal for id in list(ids)) else None  # type: ignore[call-overload]

    return wait_for(all_terminal, within=within, what="all rows to end")


def _check(rig: Rig, planned: dict[str, Case]) -> None:
    rows, ledger, effects = rig.rows(), rig.ledger(), rig.effects()
    wrong = []
    for id, (kind, steps) in planned.items():
        row = rows[id]
        events = [event for _, event in ledger[row.args["job"]]]
        starts, tag = events.count("start"), row.state.error.tag if row.state.error else None
        missed = [seam for number, (seam, _) in enumerate(steps) if not (rig.directory / f"{id}.{number}").exists()]
        may_fail = kind not in ("mutation", "late") and any(
            seam in LOST_AFTER or (kind == "retrying" and seam in ("retry before", "retry after")) for seam, _ in steps
        )
        allowed = [("success", None)] + [("failed", "WorkerLost")] * may_fail
        faults = {
            "seam was not reached": bool(missed),
            "not terminal": not row.state.kind.terminal,
            "ended otherwise": (row.state.kind.value, tag) not in allowed,
            "success without a run": row.state.kind == "success" and "end" not in events,
            "effect": kind == "mutation" and effects[row.args["job"]] != 1,
            "started twice": kind in ("action", "plain") and starts > 1,
        }
        wrong += [(kind, steps, fault, row.state, events) for fault, is_so in faults.items() if is_so]
    assert wrong == []


@pytest.mark.timeout(120)
def test_a_child_dies_at_every_seam(rig: Rig) -> None:
    rig.worker("--pool", "prefork", "--concurrency", "2")
    planned = _schedule(rig, CHILD, delay=2.0)
    _ended(rig, planned, within=90)
    _check(rig, planned)


@pytest.mark.timeout(400)
def test_the_whole_worker_dies_at_every_seam(rig: Rig) -> None:
    rig.worker("--pool", "prefork", "--concurrency", "1")
    planned: dict[str, Case] = {}
    for case in WHOLE:
        mine = _schedule(rig, [case], delay=0.6)
        planned |= mine
        marks = [rig.directory / f"{id}.{number}" for id in mine for number in range(len(case[1]))]

        def died(marks: list[Path] = marks) -> bool:
            rig.supervise()
            return all(mark.exists() for mark in marks)

        wait_for(died, within=30, what=f"the death at {case}")
    _ended(rig, planned, within=60)
    _check(rig, planned)


@pytest.mark.parametrize(
    ("seam", "exists"),
    [("insert before", False), ("insert after", False), ("publish before", True), ("publish after", True)],
)
def test_the_scheduling_process_dies(rig: Rig, seam: str, exists: bool) -> None:
    rig.worker("--pool", "solo")
    code = """
import json, os, pathlib
from confect_celery import Duration
from tests.faults import crash, shop
from confect_celery import scheduler
fixed = scheduler.new_id
def new_id(now):
    id = fixed(now)
    where = pathlib.Path(os.environ["TEST_CRASH"]) / "plan.json"
    where.write_text(json.dumps({str(id): [[os.environ["SEAM"], "child"]]}))
    return id
scheduler.new_id = new_id
shop.confect.scheduler.run_after(Duration.seconds(0.3), shop.mutation, {"job": "scheduled"})
"""
    env = {**rig.env, "SEAM": seam, "PYTHONPATH": str(ROOT), "PATH": ""}
    done = subprocess.run([sys.executable, "-c", code], env=env, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == -9, done.stderr

    rows = rig.rows()
    assert len(rows) == int(exists)
    if exists:
        assert {row.state.kind for row in _ended(rig, rows, 20).values()} == {"success"}
        assert rig.effects() == {"scheduled": 1}
