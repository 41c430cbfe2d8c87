"""A job that was moved starts at its new time only, whatever messages of it are under way."""

from __future__ import annotations

import itertools

from confect_celery import DateTime, Duration
from tests.integration.rig import Rig
from tests.support.waiting import wait_for

FROM_TO = {
    "far to near": (Duration.hours(1), Duration.seconds(1)),
    "far to soon": (Duration.days(300), Duration.seconds(3)),
    "out, later": (Duration.seconds(1), Duration.seconds(4)),
    "out, earlier": (Duration.seconds(1.2), Duration.seconds(1)),
    "out, a little later": (Duration.seconds(1), Duration.seconds(1.5)),
}


def test_starts_at_the_new_time_only(shared: Rig) -> None:
    wanted = {}
    for kind, case in itertools.product(("mark", "look"), FROM_TO):
        first, then = FROM_TO[case]
        function = getattr(shared.shop, kind)
        id = shared.scheduler.run_after(first, function, {"label": f"{kind} {case}"})
        wanted[id] = DateTime.now() + then, first <= shared.shop.confect.settings.found_within
        assert shared.scheduler.reschedule(id, then) is True

    for row in shared.ended(list(wanted)):
        time, was_out = wanted[row.id]
        assert row.state.kind == "success" and row.scheduled_time >= time
        wait_for(lambda id=row.id, n=int(was_out): shared.dropped(id) == n, what="the old message to be dropped")
        [at] = shared.marks(row.args["label"])
        assert at * 1_000_000 >= row.scheduled_time.epoch_micros
        assert shared.scheduler.reschedule(row.id, Duration.seconds(1)) is False


def test_a_message_of_an_older_attempt_starts_nothing(shared: Rig) -> None:
    id = shared.scheduler.run_after(Duration.seconds(1), shared.shop.mark, {"label": "older attempt"})
    old = shared.delivery(id)
    assert shared.scheduler.reschedule(id, Duration.hours(1)) is True
    shared.publish(old, 2)
    wait_for(lambda: shared.dropped(id) == 3, what="the old messages to be dropped")

    row = shared.row(id)
    assert (row.state.kind, row.attempt, row.next_at) == ("pending", 1, row.scheduled_time)
    assert shared.marks("older attempt") == []
    assert shared.scheduler.cancel(id) is True


def test_moved_again_and_again_it_runs_once(shared: Rig) -> None:
    id = shared.scheduler.run_after(Duration.seconds(1), shared.shop.mark, {"label": "moved"})
    for seconds in (2, 1, 3600, 1.5, 1.2, 2):  # 1 and 1.2 go out at once, others if a dispatcher looks just then
        assert shared.scheduler.reschedule(id, Duration.seconds(seconds)) is True
    row = shared.end(id)
    wait_for(lambda: shared.dropped(id) >= 3, what="the old messages to be dropped")

    assert (row.state.kind, row.attempt) == ("success", 6)
    [at] = shared.marks("moved")
    assert at * 1_000_000 >= row.scheduled_time.epoch_micros
