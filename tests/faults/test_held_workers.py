"""Real workers die while they hold rows, on PostgreSQL: what had not begun runs elsewhere, and nothing starts twice."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from confect_celery import DateTime, Duration, ScheduledFunction
from confect_celery.store import HELD_FOR
from tests.faults.rig import Rig
from tests.support.databases import Databases, new_database
from tests.support.processes import Valkey
from tests.support.waiting import wait_for

CONFIG = {
    "confect_horizon": 0.4,
    "confect_min_delay": 0.2,
    "confect_redelivery": 5,
    "broker_transport_options": {"visibility_timeout": 20},
}
ONE = ("--pool", "prefork", "--concurrency", "1")
Steps = Sequence[tuple[str, str]]

SEAMS = ("hold after", "begin before", "begin after", "succeed_and_begin before", "succeed_and_begin after")
BEGUN = ("begin after", "succeed_and_begin after", "function started", "function ended")
"""Once they are done the row counts as begun."""


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    valkey = Valkey(tmp_path_factory.mktemp("broker"))
    valkey.start()
    yield valkey
    valkey.end()


@pytest.fixture
def new_rig(tmp_path: Path, broker: Valkey, databases: Databases) -> Iterator[Callable[..., Rig]]:
    server = databases.server("postgresql")
    with ExitStack() as stack:

        def make(**config: object) -> Rig:
            number = next(NUMBERS)
            directory = tmp_path / f"shop{number}"
            directory.mkdir()
            url = stack.enter_context(new_database(server))
            it = Rig(directory, f"redis://127.0.0.1:{broker.port}/{number}", url, CONFIG | config, crash=True)
            stack.callback(_print, it)
            stack.callback(it.close)
            return it

        yield make


NUMBERS = itertools.count(1)


def _print(rig: Rig) -> None:
    for worker in rig.workers:
        print(f"----- {worker.log.name}\n{worker.output()[-4000:]}")


def schedule(
    rig: Rig, count: int, steps: Steps, *, at: int | None = None, kind: str = "action", after: float = 1.5
) -> list[str]:
    """So many at one instant, in four messages; the steps are of number `at`, or of whichever comes there first."""
    function = rig.shop.FUNCTIONS[kind]
    when = DateTime.now() + Duration.seconds(after)
    jobs = [(when, function, {"job": f"{kind}-{number}"}) for number in range(count)]
    ids = [str(rig.confect.scheduler.run_at(*job)) for job in jobs]
    plan = {"any" if at is None else ids[at]: list(steps)}
    (rig.directory / "plan.json").write_text(json.dumps(plan))
    return ids


def ended(rig: Rig, ids: Sequence[str], *, within: float, supervised: bool = True) -> dict[str, ScheduledFunction]:
    def all_terminal() -> dict[str, ScheduledFunction] | None:
        if supervised:
            rig.supervise()
        rows = rig.rows()
        return rows if all(rows[id].state.kind.terminal for id in ids) else None

    return wait_for(all_terminal, within=within, what="all rows to end")


def failed(rig: Rig, rows: dict[str, ScheduledFunction]) -> list[str]:
    """The jobs that failed; of all, that nothing started twice, and that each row tells the truth."""
    ledger, wrong = rig.ledger(), []
    for row in rows.values():
        events = [event for _, event in ledger[row.args["job"]]]
        lost = row.state.kind == "failed" and row.state.error is not None and row.state.error.tag == "WorkerLost"
        fine = events == ["start", "end"] if row.state.kind == "success" else lost and events.count("start") <= 1
        wrong += [(row.args["job"], row.state, events)] * (not fine)
    assert wrong == []
    return [row.args["job"] for row in rows.values() if row.state.kind == "failed"]


def reached(rig: Rig, ids: Sequence[str], count: int) -> None:
    marks = [path for name in (*ids, "any") for path in rig.directory.glob(f"{name}.*")]
    assert len(marks) == count, marks


def a_poison(rig: Rig, kind: str) -> None:
    rig.worker(*ONE)
    ids = schedule(rig, 96, [("function started", "child")], at=40, kind=kind)
    rows = ended(rig, ids, within=60)
    reached(rig, ids, 1)
    assert failed(rig, rows) == [f"{kind}-40"], "the end of the one before was known to its worker"
    assert sum(row.attempt > 1 for row in rows.values()) > 20, "they were held"


def children(rig: Rig) -> None:
    rig.worker(*ONE)
    steps = [(seam, "child") for seam in SEAMS]
    ids = schedule(rig, 160, steps)
    rows = ended(rig, ids, within=90)
    reached(rig, ids, len(steps))
    assert len(failed(rig, rows)) <= len(steps), "of each child at most the one that it was at"


def waits(rig: Rig, kind: str) -> None:
    (rig.directory / "early").touch()
    rig.worker(*ONE)
    ids = schedule(rig, 96, [("wait before", "child")], kind=kind, after=5)
    rows = ended(rig, ids, within=60)
    reached(rig, ids, 1)
    assert failed(rig, rows) == [], "what a child waits for has not begun"
    assert {row.losses for row in rows.values()} == {0}, "nor did it end the child"


def gives_up(rig: Rig) -> None:
    (rig.directory / "gives up").touch()
    rig.worker(*ONE)
    ids = schedule(rig, 96, [])
    rows = ended(rig, ids, within=60)
    gave_up = DateTime.from_epoch_millis(int((rig.directory / "gave up").stat().st_ctime * 1000))
    assert failed(rig, rows) == []
    last = max(row.completed_time for row in rows.values() if row.completed_time is not None)
    assert last - gave_up < HELD_FOR, "its worker has given back what it held"


def whole(rig: Rig, seam: str) -> None:
    first = rig.worker(*ONE)
    steps = [("hold after", "nobody")] * seam.startswith("function") + [(seam, "whole")]
    ids = schedule(rig, 96, steps)
    wait_for(lambda: not first.alive, within=30, what="its death")
    reached(rig, ids, len(steps))
    died = time.monotonic()
    held = [row for row in rig.rows().values() if row.state.kind == "pending" and row.deliveries == -1]
    assert held, "it held some"
    rig.workers.remove(first)
    rig.worker(*ONE)
    rows = ended(rig, ids, within=60, supervised=False)
    assert time.monotonic() - died < 40
    lost = failed(rig, rows)
    assert len(lost) <= 1 + (seam in BEGUN), "that which had begun, and the one before it whose end was not recorded"
    assert (seam in BEGUN) <= len(lost)
    assert not {row.args["job"] for row in held} & set(lost)


def at_once(*doings: Callable[[], None]) -> None:
    """Much of it is waiting."""
    with ThreadPoolExecutor(len(doings)) as threads:
        for done in [threads.submit(doing) for doing in doings]:
            done.result()


@pytest.mark.timeout(200)
def test_a_child_dies_that_holds_rows(new_rig: Callable[..., Rig]) -> None:
    rigs = [new_rig() for _ in range(4)]
    at_once(
        lambda: a_poison(rigs[0], "action"), lambda: a_poison(rigs[1], "plain"), lambda: children(rigs[2]),
        lambda: gives_up(rigs[3])
    )  # fmt: skip


@pytest.mark.timeout(200)
def test_a_child_dies_that_waits_for_the_time_of_a_row(new_rig: Callable[..., Rig]) -> None:
    rigs = {kind: new_rig(confect_horizon=4) for kind in ("action", "plain", "mutation")}
    at_once(*(lambda rig=rig, kind=kind: waits(rig, kind) for kind, rig in rigs.items()))  # type: ignore[misc]


@pytest.mark.timeout(200)
def test_a_whole_worker_dies_that_holds_rows(new_rig: Callable[..., Rig]) -> None:
    seams = ("hold after", "begin after", "succeed_and_begin after", "function started")
    rigs = [new_rig() for _ in seams]
    at_once(*(lambda rig=rig, seam=seam: whole(rig, seam) for rig, seam in zip(rigs, seams, strict=True)))  # type: ignore[misc]
