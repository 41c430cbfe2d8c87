"""`confect_show_args = False`: the values of arguments are in the table and in nothing that is printed or announced."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from confect_celery import Duration
from tests.integration.rig import Rig, rig
from tests.support.listening import listening
from tests.support.waiting import wait_for

SECRET = "s3cr3t-4711"
SOON = Duration.seconds(1)


@pytest.fixture(scope="module")
def discreet(tmp_path_factory: pytest.TempPathFactory, broker_urls: Iterator[str]) -> Iterator[Rig]:
    """A shop that shows no arguments, and logs its events."""
    with rig(tmp_path_factory.mktemp("discreet"), next(broker_urls), {"confect_show_args": False}) as it:
        it.worker(TEST_EVENTS_LOG="DEBUG", TEST_WITHOUT="changed")
        yield it


def test_no_argument_is_shown(discreet: Rig) -> None:
    shop = discreet.shop
    label = shop.Label(label=SECRET)
    with listening(discreet.app) as events:
        ids = [
            discreet.scheduler.run_after(SOON, shop.mark, label),
            discreet.scheduler.run_after(SOON, shop.look, label),
            discreet.scheduler.run_after(SOON, shop.flaky, {"label": SECRET, "failures": 0}),
            discreet.scheduler.run_after(SOON, shop.flaky.s(SECRET, 0)),
            discreet.scheduler.run_after(SOON, shop.changed, label),  # its arguments no longer fit in the worker
            discreet.scheduler.run_after(SOON, shop.act_and_die, label),
        ]
        canceled = discreet.scheduler.run_after(SOON, shop.mark, label)
        assert discreet.scheduler.cancel(canceled)
        rows = discreet.ended(ids)
        wait_for(lambda: discreet.dropped(canceled), what="the canceled message to be dropped")
        wait_for(
            lambda: {e.get("uuid") for e in events if e["type"] == "task-succeeded"} >= set(ids[:4]), what="events"
        )

    assert [row.state.kind for row in rows] == ["success"] * 4 + ["failed"] * 2
    assert [row.state.error.tag for row in rows if row.state.error] == ["InvalidArguments", "WorkerLost"]
    # `flaky` gives its label back: a result is the function's own word, in the backend and in events.
    shown = [event for event in events if event["type"] != "task-succeeded"]
    assert SECRET not in json.dumps(shown, default=repr)
    lines = [line for line in discreet.workers[0].output().splitlines() if " succeeded in " not in line]
    assert SECRET not in "\n".join(lines)
    assert SECRET not in repr([row.state.error for row in rows])
    assert all(row.args == {"label": SECRET} for row in rows[:2]), "the table has them"


def test_errors_are_bounded_and_say_what_the_function_said(discreet: Rig) -> None:
    row = discreet.end(discreet.scheduler.run_after(SOON, discreet.shop.fail_with, discreet.shop.Size(size=300_000)))

    error = row.state.error
    assert error is not None and error.tag == "HugeError"
    assert len(error.message) <= 4_000 and len(error.traceback or "") <= 16_000
    assert len(json.dumps([error.tag, error.message, error.data, error.traceback])) < 40_000
