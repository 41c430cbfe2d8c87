"""A pool's child is ready before its first row."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa
from celery import signals

from confect_celery import Confect, DateTime, Duration
from confect_celery.runtime import Succeeded
from confect_celery.runtime.warm_up import have_children_ready
from tests.support.waiting import wait_for


def test_a_forked_child_connects_and_compiles_by_itself(confect: Confect, monkeypatch: pytest.MonkeyPatch) -> None:
    ready: list[int] = []
    rows: Any = type(confect.store.rows)
    warm_up = rows.warm_up
    monkeypatch.setattr(rows, "warm_up", lambda self, c: ready.append(1) if warm_up(self, c) is None else None)
    no_more = have_children_ready(confect._parts)
    try:
        told = signals.worker_process_init.send(sender=None)
        wait_for(lambda: ready, within=10, what="the child to be ready")
    finally:
        no_more()
    if confect.store.database.dialect.time is not None:
        wait_for(lambda: confect.clock._answer is not None, within=10, what="its time")  # type: ignore[attr-defined]
    assert len(signals.worker_process_init.send(sender=None)) == len(told) - 1, "the worker has ended"


@pytest.mark.parametrize("store", ["postgresql"], indirect=True)
def test_a_run_asks_for_the_time_before_it_has_its_connection(confect: Confect) -> None:
    @confect.group("t").internal_action
    def act() -> None: ...

    id = confect.scheduler.run_after(Duration.seconds(1), act)
    with confect.store.database.transaction() as t:
        t.connection.execute(sa.update(confect.store.rows.table).values(scheduled_time=DateTime.from_epoch_millis(0)))
    clock, pool = confect.clock, confect.store.database.engine.pool
    clock._ask_at = float("-inf")  # type: ignore[attr-defined]  # half a minute later
    assert isinstance(confect.gate.run(id, 0, act.name), Succeeded)
    assert clock._ask_at > 0 and pool.checkedin() + pool.checkedout() == 1  # type: ignore[attr-defined]
