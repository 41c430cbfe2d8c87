"""Many rows due at once share messages, and each of them runs as if it had come alone."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from confect_celery import Duration, StateKind
from confect_celery.runtime import CeleryTransport
from confect_celery.runtime.batches import BATCH_HEADER, BATCH_TASK, BatchTransport
from confect_celery.store import Delivery
from tests.integration.rig import Rig
from tests.support.databases import Databases
from tests.support.listening import listening
from tests.support.waiting import wait_for

NOW = Duration.seconds(1)
NewRig = Callable[..., Rig]

EITHER_WAY = pytest.mark.parametrize("batch", [50, 1], ids=["in one message", "gathered by the worker"])


def batches(rig: Rig) -> int:
    """How many such messages the workers have got."""
    return sum(worker.output().count(f"{BATCH_TASK}[") for worker in rig.workers)


def marks(rig: Rig, prefix: str, count: int) -> list[tuple[Duration, Any, Any]]:
    return [(NOW, rig.shop.mark, {"label": f"{prefix} {number}"}) for number in range(count)]


def once_each(rig: Rig, labels: Sequence[str]) -> None:
    assert {label: len(rig.marks(label)) for label in labels} == dict.fromkeys(labels, 1)


@EITHER_WAY
def test_rows_of_all_kinds_run_once_each_under_their_own_ids(new_rig: NewRig, batch: int) -> None:
    rig = new_rig(confect_batch=batch)
    rig.worker(TEST_GATHERS="yes")
    jobs = marks(rig, "m", 60)
    jobs += [(NOW, rig.shop.look, {"label": f"l {number}"}) for number in range(60)]
    jobs += [(NOW, rig.shop.add, {"x": 1000, "y": number}) for number in range(60)]
    with listening(rig.app) as events:
        ids = rig.scheduler.run_many(jobs)
        rows = rig.ended(ids)

        def told() -> bool:
            heard = {(event.get("uuid"), event["type"]) for event in list(events)}
            return heard >= {(id, f"task-{what}") for id in ids for what in ("received", "started", "succeeded")}

        wait_for(told, within=20, what="each row's own events")

    assert {row.state.kind for row in rows} == {StateKind.SUCCESS}
    once_each(
        rig, [f"m {n}" for n in range(60)] + [f"l {n}" for n in range(60)] + [f"plain {1000 + n}" for n in range(60)]
    )
    assert 0 < batches(rig) < (60 if batch > 1 else len(ids))
    seen = rig.app.AsyncResult(ids[70]).get(timeout=10)
    assert seen == {"row": ids[70], "task": ids[70], "root": ids[70], "eta": seen["eta"]}
    assert rig.app.AsyncResult(ids[130]).get(timeout=10) == 1010
    (done,) = [event for event in events if (event.get("uuid"), event["type"]) == (ids[130], "task-succeeded")]
    assert done["result"] == "1010" and done["hostname"].startswith("w")
    assert not [event for event in events if event.get("name") == BATCH_TASK]


@pytest.fixture(params=["sqlite", "postgresql"])
def new_shop(request: pytest.FixtureRequest, new_rig: NewRig, databases: Databases, tmp_path: Path) -> Iterator[NewRig]:
    """As `new_rig`, on the database of the parameter; on PostgreSQL each mark tells its transaction."""
    with databases.url(request.param, tmp_path) as url:

        def make(**config: Any) -> Rig:
            rig = new_rig(confect_database_url=url, **config)
            rig.confect.store.migrate()
            if request.param == "postgresql":
                with rig.confect.store.database.engine.begin() as connection:
                    connection.exec_driver_sql("ALTER TABLE marks ADD COLUMN txid bigint DEFAULT txid_current()")
            return rig

        yield make


def transactions(rig: Rig) -> int | None:
    """How many left a mark; None where nobody knows."""
    with rig.confect.store.database.engine.connect() as connection:
        if connection.dialect.name != "postgresql":
            return None
        found: int = connection.exec_driver_sql("SELECT count(DISTINCT txid) FROM marks").scalar_one()
        return found


def test_brief_mutations_share_transactions_and_what_is_said_of_each_is_true(new_shop: NewRig) -> None:
    rig = new_shop(confect_dispatcher="off")
    ids = rig.scheduler.run_many(marks(rig, "m", 200))
    published_by_hand(rig, ids[:40])
    untrue: list[Any] = []
    heard: dict[str, dict[str, Any]] = {}
    with listening(rig.app) as events:
        rig.worker("--pool", "prefork", "--concurrency", "1")
        rig.ended(ids[:40])  # by now it is known as brief
        for first in range(40, 200, 40):
            published_by_hand(rig, ids[first : first + 40])

        def all_told() -> bool:
            said = {id for id in ids if rig.app.backend.get_state(id) == "SUCCESS"}
            while events:
                event = events.pop(0)
                heard.setdefault(event.get("uuid") or "", {})[event["type"]] = event
            said |= {id for id in ids if "task-succeeded" in heard.get(id, ())}
            known = [id for id in ids if id in said]
            rows = rig.rows(known)
            untrue.extend(row for row in rows if row.state.kind is not StateKind.SUCCESS)
            untrue.extend(row.id for row in rows if len(rig.marks(row.args["label"])) != 1)
            return len(said) == len(ids) and all("task-succeeded" in heard.get(id, ()) for id in ids)

        wait_for(all_told, within=60, what="all to have succeeded")

    assert untrue == []
    once_each(rig, [f"m {n}" for n in range(200)])
    shared = transactions(rig)
    assert shared is None or shared < 150
    later = [heard[id] for id in ids[40:]]
    began = min(each["task-started"]["timestamp"] for each in later)
    took = max(each["task-succeeded"]["timestamp"] for each in later) - began
    told = sum(each["task-succeeded"]["runtime"] for each in later)
    assert told <= took * 1.05, "one child ran them one after the other; none is told the time of those inside it"


def test_a_child_that_dies_in_a_shared_transaction_takes_nobody_with_it(new_shop: NewRig, tmp_path: Path) -> None:
    rig, ran = new_shop(confect_redelivery=8), tmp_path / "ran"
    rig.worker("--pool", "prefork", "--concurrency", "1", TEST_RAN=str(ran))
    labels = [f"b {number}" for number in range(120)]
    labels.insert(70, "poison")  # in the midst of the third message
    ids = rig.scheduler.run_many([(NOW, rig.shop.brittle, {"label": label}) for label in labels])
    rows = rig.ended(ids, within=60)

    died, lived = rows[70], [*rows[:70], *rows[71:]]
    assert (died.state.kind, died.losses) == (StateKind.FAILED, 3)
    assert died.state.error is not None and died.state.error.tag == "WorkerLost"
    assert {(row.state.kind, row.losses) for row in lived} == {(StateKind.SUCCESS, 0)}
    once_each(rig, [label for label in labels if label != "poison"])
    assert rig.marks("poison") == []
    times = Counter(ran.read_text().split("\n"))
    assert times["poison"] == 3
    assert any(times[label] > 1 for label in labels if label != "poison"), "it died with what others had done"


def test_a_worker_without_task_events_sends_none_of_rows_in_batches(new_rig: NewRig) -> None:
    rig = new_rig(worker_send_task_events=False)
    rig.worker()
    with listening(rig.app) as events:
        ids = rig.scheduler.run_many(marks(rig, "m", 40))
        rig.ended(ids)
        assert batches(rig) > 0
        rig.app.control.enable_events()
        enabled = "Events of group {task} enabled by remote."
        wait_for(lambda: enabled in rig.workers[0].output(), what="events to be on")
        before = [event for event in events if event["type"].startswith("task-") and event["type"] != "task-sent"]
        later = rig.scheduler.run_many(marks(rig, "n", 40))
        rig.ended(later)
        done = {"task-received", "task-started", "task-succeeded"}
        wait_for(
            lambda: all(done <= {e["type"] for e in events if e.get("uuid") == id} for id in later), what="their events"
        )
    assert before == []


@EITHER_WAY
def test_a_child_that_dies_takes_no_other_row_with_it(new_rig: NewRig, batch: int) -> None:
    rig = new_rig(confect_redelivery=8, confect_batch=batch)
    rig.worker(TEST_GATHERS="yes")
    jobs = marks(rig, "before", 40)
    jobs.insert(20, (NOW, rig.shop.die, {"label": "poison"}))
    jobs.insert(35, (NOW, rig.shop.act_and_die, {"label": "last words"}))
    ids = rig.scheduler.run_many(jobs)
    rows = rig.ended(ids, within=60)

    died = [row for row in rows if row.name.endswith("die")]
    assert [(row.state.kind, row.state.error.tag) for row in died] == [(StateKind.FAILED, "WorkerLost")] * 2
    assert {row.losses for row in died} == {0, 3}, "the mutation was tried three times, the action once"
    assert {row.state.kind for row in rows if row not in died} == {StateKind.SUCCESS}
    once_each(rig, [f"before {n}" for n in range(40)] + ["last words"])
    assert batches(rig) > 0


@EITHER_WAY
def test_each_row_has_its_own_time_limit(new_rig: NewRig, batch: int) -> None:
    rig = new_rig(confect_time_limit=2, confect_redelivery=20, confect_batch=batch)
    rig.worker(
        "--pool", "prefork", "--concurrency", "1", TEST_GATHERS="yes"
    )  # on SQLite another would wait for the stuck one's lock
    jobs = marks(rig, "beside", 40)
    jobs.insert(5, (NOW, rig.shop.slow_mark, {"label": "stuck", "seconds": 60}))
    jobs.insert(30, (NOW, rig.shop.slow_act, {"label": "hung", "seconds": 60}))
    ids = rig.scheduler.run_many(jobs)
    rows = rig.ended(ids, within=30)

    late = [row for row in rows if row.state.kind is not StateKind.SUCCESS]
    assert {(row.name.rpartition("/")[2], row.state.error.tag) for row in late} == {
        ("slow_mark", "TimeLimitExceeded"),
        ("slow_act", "TimeLimitExceeded"),
    }
    assert "2" in late[0].state.error.message
    once_each(rig, [f"beside {n}" for n in range(40)])
    assert rig.marks("stuck") == []


def published_by_hand(rig: Rig, ids: Sequence[str], times: int = 1) -> None:
    transport = CeleryTransport(rig.app, rig.confect.settings)
    together = BatchTransport(rig.app, rig.confect.settings, transport)
    deliveries: list[Delivery] = [rig.delivery(id) for id in ids]  # type: ignore[arg-type]
    for _ in range(times):
        together.publish(deliveries)


def test_duplicates_start_nothing_and_what_is_canceled_never_starts(new_rig: NewRig) -> None:
    rig = new_rig(confect_dispatcher="off")
    ids = rig.scheduler.run_many(marks(rig, "m", 30))
    acts = rig.scheduler.run_many([(NOW, rig.shop.look, {"label": f"l {n}"}) for n in range(30)])
    for id in (*ids[::2], *acts[::2]):
        assert rig.scheduler.cancel(id)
    for each in (ids, acts):
        published_by_hand(rig, each, times=3)
    rig.worker()
    rows = rig.ended([*ids, *acts])

    assert [row.state.kind for row in rows] == [StateKind.CANCELED, StateKind.SUCCESS] * 30
    wait_for(lambda: rig.redis.llen("celery") == 0 and batches(rig) >= 12, within=20, what="all messages to be read")
    once_each(rig, [f"m {n}" for n in range(1, 30, 2)] + [f"l {n}" for n in range(1, 30, 2)])
    assert not [n for n in range(0, 30, 2) if rig.marks(f"m {n}") or rig.marks(f"l {n}")]


def test_what_takes_long_does_not_hold_up_what_came_with_it(new_rig: NewRig) -> None:
    rig = new_rig(confect_dispatcher="off")
    rig.worker()
    slow = [(NOW, rig.shop.slow_act, {"label": f"s {n}", "seconds": 0.7}) for n in range(8)]
    ids = rig.scheduler.run_many([*slow, *marks(rig, "m", 20)])[:8]  # of so many none is published by us
    wait_for(lambda: time.time() * 1e6 > rig.row(ids[-1]).scheduled_time.epoch_micros, within=5, what="their time")
    published_by_hand(rig, ids)
    rig.ended(ids)

    assert rig.received(ids[0]) == 0, "the first ran out of the batch"
    assert [rig.received(id) for id in ids[1:]] == [1] * 7, "the others were handed on, each alone"


def test_what_is_canceled_while_it_runs_is_told_as_revoked(new_rig: NewRig) -> None:
    rig = new_rig(confect_dispatcher="off")
    slow = [(NOW, rig.shop.slow_act, {"label": "slow", "seconds": 0.3})]
    others = [(NOW, rig.shop.look, {"label": f"l {n}"}) for n in range(30)]
    ids = rig.scheduler.run_many([*slow, *others])
    wait_for(lambda: time.time() * 1e6 > rig.row(ids[-1]).scheduled_time.epoch_micros, within=5, what="their time")
    published_by_hand(rig, ids)
    rig.worker()
    rig.marked("slow started")
    assert rig.scheduler.cancel(ids[0])
    rows = rig.ended(ids)

    assert [row.state.kind for row in rows] == [StateKind.CANCELED] + [StateKind.SUCCESS] * 30
    wait_for(lambda: rig.app.AsyncResult(ids[0]).state == "REVOKED", within=10, what="its result")


def test_terminate_ends_the_row_that_runs_and_no_other(new_rig: NewRig) -> None:
    rig = new_rig(confect_redelivery=20)
    rig.worker("--pool", "prefork", "--concurrency", "1")
    jobs = marks(rig, "m", 40)
    jobs.insert(0, (Duration.millis(1000), rig.shop.slow_act, {"label": "long", "seconds": 60}))
    ids = rig.scheduler.run_many(jobs)
    rig.marked("long started")
    rig.app.control.revoke(ids[0], terminate=True, signal="SIGKILL")
    rows = rig.ended(ids)

    assert [row.state.kind for row in rows] == [StateKind.CANCELED] + [StateKind.SUCCESS] * 40
    once_each(rig, [f"m {n}" for n in range(40)])


@pytest.mark.parametrize(
    "header",
    [None, "x", {}, [], [[]], [["a"]], [["a", 0]], [["a", 0, 5]], [["\ud800", 0, "n"]], [["x" * 99, 0, "n"]],
     [[None, -1, None]], [["a", 2**70, "n"]], [["a", True, "n"]], [["0198-no-such-row", 0, "internal/test/mark"]]],
)  # fmt: skip
def test_a_forged_batch_starts_nothing(shared: Rig, header: Any) -> None:
    before = shared.scheduler.run_after(Duration.hours(1), shared.shop.mark, {"label": "not yet"})
    for entries in (header, [[before, 0, "internal/test/mark"]], [[before, 0, "internal/test/die"]]):
        shared.app.send_task(BATCH_TASK, headers={BATCH_HEADER: entries})
    after = shared.scheduler.run_after(NOW, shared.shop.mark, {"label": "after the forged"})
    assert shared.end(after).state.kind is StateKind.SUCCESS
    assert shared.row(before).state.kind is StateKind.PENDING and shared.marks("not yet") == []


def test_it_can_be_turned_off(new_rig: NewRig) -> None:
    rig = new_rig(confect_batch=1, confect_gathered=1)
    rig.worker()
    rig.ended(rig.scheduler.run_many(marks(rig, "m", 60)))
    assert batches(rig) == 0
    once_each(rig, [f"m {n}" for n in range(60)])
