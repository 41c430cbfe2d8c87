"""Who can write to the broker cannot run what the table does not say."""

from __future__ import annotations

import pickle
import uuid

import pytest

from confect_celery import Duration, ScheduledFunctionId
from tests.integration.rig import Rig
from tests.security.hostile import Hostile
from tests.support.waiting import wait_for

FAR, MARK, SLOW, LOOK = Duration.days(30), "internal/test/mark", "internal/test/slow_mark", "internal/test/look"


def scheduled(shop: Rig, label: str, delay: Duration = FAR) -> ScheduledFunctionId:
    """A row of the mutation `mark`."""
    return shop.scheduler.run_after(delay, shop.shop.mark, shop.shop.Label(label=label))


def dropped(shop: Rig, id: str, times: int = 1) -> None:
    """Wait until so many messages with this id were dropped."""
    wait_for(lambda: shop.dropped(id) >= times, within=20, what=f"{times} messages of {id} to be dropped")


def untouched(shop: Rig, id: str, label: str) -> None:
    """The row waits as if nothing had come, and its function has not run."""
    row = shop.row(id)
    assert (row.state.kind, row.attempt) == ("pending", 0)
    assert shop.marks(label) == []


@pytest.mark.parametrize("name", [MARK, LOOK])
def test_an_id_that_no_row_has_starts_nothing(shop: Rig, hostile: Hostile, name: str) -> None:
    before = len(shop.marks("invented"))
    id = hostile.task(name, attempt=0, kwargs={"label": "invented"})
    dropped(shop, id)

    assert len(shop.marks("invented")) == before and shop.scheduler.get(id) is None


def test_a_row_due_in_a_month_does_not_start_by_a_message(shop: Rig, hostile: Hostile) -> None:
    id = scheduled(shop, "a month early")
    hostile.task(MARK, id, 0)
    dropped(shop, id)

    untouched(shop, id, "a month early")


def test_nor_does_a_plain_task(shop: Rig, hostile: Hostile) -> None:
    id = shop.scheduler.run_after(FAR, shop.shop.add, {"x": 70_000, "y": 1})
    hostile.task("plain.add", id, 0, kwargs={"x": 70_000, "y": 1})
    dropped(shop, id)

    untouched(shop, id, "plain 70001")


def test_what_ended_does_not_start_again(shop: Rig, hostile: Hostile) -> None:
    done, canceled = scheduled(shop, "done", Duration.seconds(1)), scheduled(shop, "canceled")
    shop.end(done)
    assert shop.scheduler.cancel(canceled)
    for id in (done, canceled):
        for attempt in (0, 1):
            hostile.task(MARK, id, attempt)
    dropped(shop, done, 2)
    dropped(shop, canceled, 2)

    assert len(shop.marks("done")) == 1 and shop.marks("canceled") == []
    assert (shop.row(done).state.kind, shop.row(canceled).state.kind) == ("success", "canceled")


def test_another_functions_message_does_not_start_a_row(shop: Rig, hostile: Hostile) -> None:
    # Its queue and time limit are another's: what the row says would run where it must not, or without its limit.
    id = scheduled(shop, "misnamed", Duration.seconds(1.9))
    for name in (SLOW, LOOK):
        hostile.task(name, id, 0, timelimit=[None, None])
    dropped(shop, id, 2)

    assert shop.end(id).state.kind == "success"
    assert len(shop.marks("misnamed")) == 1


def test_a_plain_task_does_not_claim_anothers_row(shop: Rig, hostile: Hostile) -> None:
    function = scheduled(shop, "not a plain task", Duration.seconds(1.9))
    plain = shop.scheduler.run_after(Duration.seconds(1.9), shop.shop.add, {"x": 80_000, "y": 1})
    hostile.task("plain.add", function, 0, args=[80_000, 5])
    hostile.task("plain.header", plain, 0, args=["x"])
    hostile.task(MARK, plain, 0)
    dropped(shop, function)
    dropped(shop, plain, 2)

    assert [row.state.kind for row in shop.ended([function, plain])] == ["success", "success"]
    assert len(shop.marks("not a plain task")) == 1 and shop.marks("plain 80005") == []
    assert shop.app.AsyncResult(plain).get(timeout=10) == 80_001


def test_an_unknown_task_with_a_rows_id_does_not_fail_the_row(shop: Rig, hostile: Hostile) -> None:
    id = scheduled(shop, "unknown name")
    hostile.task("internal/test/nobody_defines_it", id, 0)
    wait_for(lambda: id in shop.workers[0].output(), what="the message to be refused")
    later = scheduled(shop, "after the unknown", Duration.seconds(1))
    shop.end(later)

    untouched(shop, id, "unknown name")


def test_arguments_in_a_functions_message_mean_nothing(shop: Rig, hostile: Hostile) -> None:
    id = scheduled(shop, "its own args", Duration.seconds(1))
    hostile.task(MARK, id, 0, args=[{"label": "forged"}], kwargs={"label": "forged"})

    assert shop.end(id).state.kind == "success"
    assert len(shop.marks("its own args")) == 1 and shop.marks("forged") == []


def test_a_forged_retry_count_starts_nothing_twice(shop: Rig, hostile: Hostile) -> None:
    id = scheduled(shop, "forged retries", Duration.seconds(1))
    shop.end(id)
    hostile.task(MARK, id, 1, retries=3)
    dropped(shop, id)
    assert len(shop.marks("forged retries")) == 1

    plain = shop.scheduler.run_after(FAR, shop.shop.flaky, {"label": "forged flaky", "failures": 0})
    hostile.task("plain.flaky", plain, 1, kwargs={"label": "forged flaky", "failures": 0}, retries=1)
    dropped(shop, plain)
    untouched(shop, plain, "forged flaky")


@pytest.mark.parametrize("attempt", [-1, 1, 7, 2**31, 2**63, 2**200, True, "0", 0.0, None, [0], {"x": 1}])
def test_a_forged_attempt_starts_nothing(shop: Rig, hostile: Hostile, attempt: object) -> None:
    id, label = scheduled(shop, f"attempt {attempt!r}", Duration.minutes(1)), f"attempt {attempt!r}"
    hostile.task(MARK, id, attempt)
    dropped(shop, id)

    untouched(shop, id, label)


@pytest.mark.parametrize("attempt", [0, 1, 2**40])
def test_a_plain_task_that_claims_a_row_which_is_not_there_starts_nothing(
    shop: Rig, hostile: Hostile, attempt: int
) -> None:
    x = 90_000 + attempt % 7
    hostile.task("plain.add", str(uuid.uuid4()), attempt, args=[x, 3])
    done = scheduled(shop, f"after {x}", Duration.seconds(1))
    shop.end(done)

    # An attempt that no row could have is no claim at all: then it is a call like any other, as in Celery without us.
    assert len(shop.marks(f"plain {x + 3}")) == (1 if attempt > 2**31 else 0)


def test_pickled_content_is_refused(shop: Rig, hostile: Hostile) -> None:
    flag = shop.directory / "pickle-ran"

    class Evil:
        def __reduce__(self) -> tuple[object, tuple[object, ...]]:
            return open, (str(flag), "w")

    id = scheduled(shop, "pickled")
    headers = {"task": MARK, "id": id, "confect_attempt": 0, "lang": "py"}
    body = pickle.dumps(([Evil()], {}, {}))
    seen = shop.workers[0].output().count("ContentDisallowed")
    hostile.raw(body, headers, "application/x-python-serialize")
    wait_for(lambda: shop.workers[0].output().count("ContentDisallowed") > seen, what="the refusal")

    assert not flag.exists() and list(shop.app.conf.accept_content) == ["json"]
    untouched(shop, id, "pickled")


def test_a_message_cannot_say_that_it_has_claimed_a_row(shop: Rig, hostile: Hostile) -> None:
    # Celery makes every header an attribute of the request, where the claim leaves its mark.
    id = shop.scheduler.run_after(Duration.seconds(1), shop.shop.slow_act, shop.slow("held", 3))
    shop.marked("held started")
    hostile.task("plain.header", id, args=["x"], confect_claimed_attempt=1, confect_claim={"attempt": 1})
    wait_for(lambda: f"plain.header[{id}] succeeded" in shop.workers[0].output(), what="the message to run")

    assert shop.row(id).state.kind == "inProgress" and shop.marks("held ended") == []
    assert shop.end(id).state.kind == "success" and shop.marks("held ended")
