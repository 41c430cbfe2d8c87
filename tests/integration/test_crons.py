"""Crons in real workers: each fire once, whoever dies."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable

from tests.integration.rig import Rig
from tests.support.waiting import wait_for

EVERY_SECOND = {"TEST_CRONS": json.dumps({"tick": 1})}


def test_two_workers_fire_each_tick_once_and_on_time(new_rig: Callable[..., Rig]) -> None:
    rig = new_rig()
    first, _ = rig.worker(**EVERY_SECOND), rig.worker(**EVERY_SECOND)
    wait_for(lambda: len(rig.marks("tick")) >= 5, what="five ticks")
    first.kill()
    before = len(rig.marks("tick"))
    wait_for(lambda: len(rig.marks("tick")) >= before + 3, what="three more")

    rows = [row for row in rig.called("tick") if row.state.kind == "success"]
    times = [row.scheduled_time.epoch_micros for row in rows]
    assert len(set(times)) == len(times) == len(rig.marks("tick")), "one row and one run for each fire"
    assert all((later - earlier) % 1_000_000 == 0 for earlier, later in itertools.pairwise(times)), "no drift"
    late = sorted(at - row.scheduled_time.epoch_micros / 1e6 for at, row in zip(rig.marks("tick"), rows, strict=True))
    assert late[0] >= 0, "never early"
    assert late[len(late) // 2] < 0.5, late


def test_a_worker_that_was_away_runs_once_for_what_it_missed(new_rig: Callable[..., Rig]) -> None:
    rig = new_rig()
    worker = rig.worker(**EVERY_SECOND)
    wait_for(lambda: rig.marks("tick"), what="a tick")
    worker.stop()
    count = len(rig.marks("tick"))
    (row,) = rig.confect.store.database.reading(rig.confect.store.crons.all).values()
    due = row.next_at
    wait_for(lambda: (rig.confect.clock.now() - due).total_seconds() > 3, what="three seconds without a worker")
    rig.worker(**EVERY_SECOND)
    wait_for(lambda: len(rig.marks("tick")) > count, what="the next tick")
    (row,) = rig.confect.store.database.reading(rig.confect.store.crons.all).values()
    assert row.missed >= 3 and len(rig.marks("tick")) <= count + 3
