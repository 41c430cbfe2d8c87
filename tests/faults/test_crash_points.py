"""A process is killed at every seam: no job is lost, no mutation's effect doubles, no action starts twice.

Each job has a seam of its own. Where the pool's child dies all jobs share one worker; where the whole worker dies they
come one after the other, and a supervisor starts it again: a few shops at a time, for a worker starts slowly.
"""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from confect_celery import DateTime, Duration, ScheduledFunction
from tests.faults.rig import Rig
from tests.support.processes import ROOT, Valkey
from tests.support.waiting import wait_for

Step = tuple[str, str]
Case = tuple[str, tuple[Step, ...]]
Cases = list[Case]

CONFIG = {
    "confect_horizon": 0.4,
    "confect_min_delay": 0.2,
    "confect_redelivery": 2,
    "broker_transport_options": {"visibility_timeout": 20},
}
ALONE = {"confect_batch": 1}
CHILDREN = {"confect_redelivery": 20}
"""No message is lost with them: none is to go out again, alone, because the machine is slow."""

DISPATCHER = ("claim_due after", "claim_due committed", "publish before", "publish after")
CLAIM = ("start before", "start after", "start committed", "function started")
END = ("function ended", "succeed_running before", "succeed_running after", "succeed_running committed")
IN_THE_CHILD = {
    "mutation": (
        "load_locked after", "function started", "function ended", "succeed_pending before", "succeed_pending after",
        "succeed_pending committed",
    ),
    "action": (*CLAIM, *END),
    "plain": (*CLAIM, *END),
    "retrying": (*CLAIM, "retry before", "retry after", "retry committed", *END),
    "late": (*CLAIM, *END),
}  # fmt: skip
ACK = ("ack before", "ack after")
WHEN = ("before", "after", "committed")

CHILD: Cases = [(kind, ((seam, "child"),)) for kind, seams in IN_THE_CHILD.items() for seam in seams]
COMPANIONS: Cases = [("mutation", ())] * 31
"""Enough that they share messages, four in each. An action that happens to run would be lost with its worker."""

BATCHED: Cases = [
    ("mutation", (("load_many after", "child"),)),  # far from the other: who shared its message goes alone after that
    *COMPANIONS,
    *(  # what is late goes alone; and of a row that was read with the others, a mutation's is only locked
        (kind, tuple((seam.replace("load_locked", "lock"), victim) for seam, victim in steps))
        for kind, steps in CHILD
        if kind != "late"
    ),
    ("plain", (("load_many after", "child"),)),
]
WHOLE: list[Cases] = [
    [case]
    for case in (
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
    )
]
SHARED = (
    "lock_together before", "lock_together after", "function started", "function ended", "succeed_together before",
    "succeed_together after", "succeed_together committed",
)  # fmt: skip
"""Within a transaction that others have a part in: some ran before, some would follow."""


def _among_companions(victim: str) -> list[Cases]:
    return [[*COMPANIONS[:3], ("mutation", ((seam, victim),)), *COMPANIONS[3:]] for seam in SHARED]


WHOLE_BATCHED: list[Cases] = [
    *(
        [(kind, ((seam, "whole"),)), *COMPANIONS]
        for kind, seam in (
            *(("mutation", seam) for seam in ("publish before", "publish after", *ACK, "load_many after")),
            *(("mutation", seam) for seam in ("function ended", "succeed_pending committed")),
            *(("action", seam) for seam in ("start committed", "function ended", "succeed_running committed")),
        )
    ),
    # The reconciler dies while it gives back what a dead child had not come to.
    *(
        [("mutation", (("lock after", "child"),)), *COMPANIONS, ("any", ((f"take_back {when}", "whole"),))]
        for when in WHEN
    ),
]

# Once these are committed the function counts as started: what may start but once then ends as WorkerLost.
LOST_AFTER = (
    "start after",
    "start committed",
    "function started",
    "function ended",
    "succeed_running before",
    "succeed_running after",
    *ACK,  # by its parent, while the child goes on: it may have claimed the row by then
)


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    valkey = Valkey(tmp_path_factory.mktemp("broker"))
    valkey.start()
    yield valkey
    valkey.end()


@pytest.fixture
def new_rig(tmp_path: Path, broker: Valkey) -> Iterator[Callable[..., Rig]]:
    """Make a shop without workers; keyword arguments are settings. Mutations of a batch share a transaction or not,
    whatever the machine's speed."""
    with ExitStack() as stack:
        numbers = itertools.count(1)

        def make(*, shares: bool = False, **config: Any) -> Rig:
            directory = tmp_path / f"shop{next(numbers)}"
            directory.mkdir()
            url = f"redis://127.0.0.1:{broker.port}/{next(DATABASES)}"
            it = Rig(directory, url, f"sqlite:///{directory}/shop.db", CONFIG | config, crash=True, shares=shares)
            stack.callback(_print, it)
            stack.callback(it.close)
            return it

        yield make


DATABASES = itertools.count(1)


def _print(rig: Rig) -> None:
    for worker in rig.workers:
        print(f"----- {worker.log.name}\n{worker.output()[-6000:]}")


def _schedule(rig: Rig, cases: Cases, delay: float = 1.0) -> dict[str, Case]:
    """All for one instant, beyond the horizon, so that the plan stands before a dispatcher sees a row."""
    planned: dict[str, Case] = {}
    before, when = len(rig.rows()), DateTime.now() + Duration.seconds(delay)
    for number, (kind, steps) in enumerate(cases):
        if kind == "any":
            planned[kind] = kind, steps
            continue
        job = {"job": f"{kind}-{before}-{number}"}
        planned[str(rig.confect.scheduler.run_at(when, rig.shop.FUNCTIONS[kind], job))] = kind, steps
    plan = rig.directory / "plan.json"
    known = json.loads(plan.read_text()) if plan.exists() else {}
    fresh = plan.with_suffix(".new")
    fresh.write_text(json.dumps(known | {id: steps for id, (_, steps) in planned.items() if steps}))
    fresh.replace(plan)
    for mark in rig.directory.glob("any.*"):
        mark.unlink()
    return planned


def _marks(rig: Rig, planned: dict[str, Case]) -> list[Path]:
    return [rig.directory / f"{id}.{number}" for id, (_, steps) in planned.items() for number in range(len(steps))]


def _ended(rig: Rig, ids: Iterable[str], within: float) -> dict[str, ScheduledFunction]:
    mine = [id for id in ids if id != "any"]

    def all_terminal() -> dict[str, ScheduledFunction] | None:
        rig.supervise()
        rows = rig.rows()
        return rows if all(rows[id].state.kind.terminal for id in mine) else None

    return wait_for(all_terminal, within=within, what="all rows to end")


def _check(rig: Rig, planned: dict[str, Case]) -> None:
    rows, ledger, effects = rig.rows(), rig.ledger(), rig.effects()
    missed = [path.name for path in _marks(rig, planned) if not path.exists()]
    wrong: list[Any] = [(name, planned[name.partition(".")[0]], "seam was not reached") for name in missed]
    for id, (kind, steps) in planned.items():
        if kind == "any":
            continue
        row = rows[id]
        events = [event for _, event in ledger[row.args["job"]]]
        starts, tag = events.count("start"), row.state.error.tag if row.state.error else None
        may_fail = kind not in ("mutation", "late") and any(
            seam in LOST_AFTER or (kind == "retrying" and seam in ("retry before", "retry after")) for seam, _ in steps
        )
        allowed = [("success", None)] + [("failed", "WorkerLost")] * may_fail
        faults = {
            "not terminal": not row.state.kind.terminal,
            "ended otherwise": (row.state.kind.value, tag) not in allowed,
            "success without a run": row.state.kind == "success" and "end" not in events,
            "effect": kind == "mutation" and effects[row.args["job"]] != 1,
            "started twice": kind in ("action", "plain") and starts > 1,
        }
        wrong += [(kind, steps, fault, row.state, events) for fault, is_so in faults.items() if is_so]
    assert wrong == []


def _children_die(rig: Rig, cases: Cases) -> None:
    rig.worker("--pool", "prefork", "--concurrency", "2")
    planned = _schedule(rig, cases, delay=2.0)
    _ended(rig, planned, within=90)
    _check(rig, planned)


def _whole_workers_die(rig: Rig, rounds: list[Cases]) -> None:
    rig.worker("--pool", "prefork", "--concurrency", "1")
    all_planned: dict[str, Case] = {}
    for cases in rounds:
        planned = _schedule(rig, cases, delay=0.6 + 0.02 * len(cases))  # all must be there before one is seen
        marks = _marks(rig, planned)
        all_planned |= planned

        def died(marks: list[Path] = marks) -> bool:
            rig.supervise()
            return all(mark.exists() for mark in marks)

        wait_for(died, within=30, what=f"the death at {cases[0]}")
    _ended(rig, all_planned, within=60)
    _check(rig, all_planned)


def _at_once(break_it: Callable[[Rig, Any], None], shops: list[tuple[Rig, Any]]) -> None:
    """Much of it is waiting, for Celery to notice or for a message to count as lost: one shop's time is another's."""
    with ThreadPoolExecutor(len(shops)) as threads:
        for done in [threads.submit(break_it, rig, given) for rig, given in shops]:
            done.result()


@pytest.mark.timeout(150)
def test_a_child_dies_at_every_seam(new_rig: Callable[..., Rig]) -> None:
    batches = new_rig(**CHILDREN)
    _at_once(_children_die, [(new_rig(**CHILDREN, **ALONE), CHILD), (batches, BATCHED)])
    assert batches.workers[0].output().count("Task confect_celery.batch") > 4


@pytest.mark.timeout(300)
def test_the_whole_worker_dies_at_every_seam(new_rig: Callable[..., Rig]) -> None:
    shops = [(new_rig(**ALONE), WHOLE[first::4]) for first in range(4)]
    shops += [(new_rig(), WHOLE_BATCHED[first::2]) for first in range(2)]
    _at_once(_whole_workers_die, shops)


@pytest.mark.timeout(200)
def test_a_shared_transaction_dies_at_every_seam(new_rig: Callable[..., Rig]) -> None:
    children, workers = new_rig(shares=True, **CHILDREN), new_rig(shares=True)
    shops = [(children, _among_companions("child")), (workers, _among_companions("whole"))]
    _at_once(_whole_workers_die, shops)
    assert sum(row.losses for row in children.rows().values()) == len(SHARED) - 1, (
        "where the child was when it died; of those that shared the transaction nobody else is charged, and of what "
        "was committed nobody"
    )


@pytest.mark.timeout(90)
def test_an_end_that_waits_for_the_next_claim_outlives_the_child(new_rig: Callable[..., Rig]) -> None:
    rig = new_rig(**CHILDREN)
    rig.worker("--pool", "prefork", "--concurrency", "2")
    planned = _schedule(
        rig, [("action", (("start before", "child"),) * (number % 4 == 2)) for number in range(32)], 2.0
    )
    rows = _ended(rig, planned, within=60)

    assert {row.state.kind for row in rows.values()} == {"success"}, "of what had ended, its worker knew"
    assert sum(row.losses for row in rows.values()) == 8, "and what had not begun went out again"
    assert {id: [event for _, event in rig.ledger()[rows[id].args["job"]]] for id in planned} == {
        id: ["start", "end"] for id in planned
    }


SCHEDULE = """
import json, os, pathlib
from confect_celery import Duration
from tests.faults import crash, shop
from confect_celery import drafts
fixed = drafts.new_id
def new_id(now):
    id = fixed(now)
    where = pathlib.Path(os.environ["TEST_CRASH"]) / "plan.json"
    where.write_text(json.dumps({str(id): [[os.environ["SEAM"], "child"]]}))
    return id
drafts.new_id = new_id
shop.confect.scheduler.run_after(Duration.seconds(0.3), shop.mutation, {"job": os.environ["SEAM"]})
"""


@pytest.mark.timeout(90)
def test_the_scheduling_process_dies(new_rig: Callable[..., Rig]) -> None:
    rig = new_rig(confect_horizon=1)  # else a dispatcher would be sure to find it, and this process publish nothing
    rig.worker("--pool", "solo")
    for seam in ("insert before", "insert after", "publish before", "publish after"):
        env = {**rig.env, "SEAM": seam, "PYTHONPATH": str(ROOT), "PATH": ""}
        died = subprocess.run([sys.executable, "-c", SCHEDULE], env=env, cwd=ROOT, capture_output=True, check=False)
        assert died.returncode == -9, (seam, died.stderr.decode())

    rows = _ended(rig, rig.rows(), within=30)
    # One row is one statement, which is committed when it has run.
    exist = {"insert after", "publish before", "publish after"}
    assert {row.args["job"]: row.state.kind for row in rows.values()} == dict.fromkeys(exist, "success")
    assert rig.effects() == dict.fromkeys(exist, 1)
