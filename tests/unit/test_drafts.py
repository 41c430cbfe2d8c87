"""What rows of one call share, and whether any of them is near."""

from __future__ import annotations

from typing import Any

import pytest
from celery import Celery

from confect_celery import Duration
from confect_celery.drafts import Drafts
from confect_celery.functions import Group, Registry
from confect_celery.runtime.messages import call_of
from confect_celery.settings import Settings
from confect_celery.timing import DateTime

NOW = DateTime.parse("2026-11-30T12:00:00Z")
FAR, NEAR = Duration.hours(1), Duration.seconds(2)


@Celery("drafts", set_as_current=False).task(name="drafts.task")
def task() -> None: ...


REGISTRY = Registry()
DRAFTS = Drafts(REGISTRY, Settings(), call_of)


@Group(REGISTRY, "drafts").internal_action
def action() -> None: ...


WHAT: Any = pytest.mark.parametrize("what", [action, task], ids=["function", "task"])


@WHAT
def test_the_time_of_many_is_worked_out_once(what: Any) -> None:
    rows, near = DRAFTS.rows([(FAR, what, None)] * 3, NOW, None)
    assert len({row.id for row in rows}) == 3 and not near
    assert all(row.due is rows[0].due and row.scheduled_time is rows[0].scheduled_time for row in rows)


@WHAT
@pytest.mark.parametrize(("delays", "near"), [([], False), ([FAR], False), ([NEAR], True), ([FAR, NEAR, FAR], True)])
def test_one_that_is_near_is_enough(what: Any, delays: list[Duration], near: bool) -> None:
    rows, told = DRAFTS.rows([(delay, what, None) for delay in delays], NOW, None)
    assert told is near
    assert [row.due for row in rows] == [NOW + delay for delay in delays]
