"""What rows of one call share, and whether any of them is near."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
from celery import Celery

from confect_celery import Duration, InvalidArguments
from confect_celery.drafts import Drafts, with_times
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


@WHAT
def test_rows_on_demand_are_made_a_block_at_a_time(what: Any) -> None:
    delays = [FAR + Duration.millis(n) for n in range(7)]
    rows = DRAFTS.rows_on_demand([(delay, what, None) for delay in delays], NOW, None, 3)
    assert len(rows) == 7
    assert [row.due for row in rows] == [NOW + delay for delay in delays]
    assert [row.id for row in rows] == sorted({row.id for row in rows})
    assert all(again is row for again, row in zip(rows, list(rows), strict=True))
    made = list(rows)
    assert [rows[0], rows[-1], *rows[2:5]] == [made[0], made[6], *made[2:5]]


def test_a_block_that_cannot_be_made_is_tried_again() -> None:
    jobs: list[Any] = [(FAR, action, None)] * 3 + [(FAR, action, {"unknown": 1})]
    rows = DRAFTS.rows_on_demand(jobs, NOW, None, 2)
    for _ in range(2):
        with pytest.raises(InvalidArguments):
            list(rows)
    jobs[3] = jobs[0]
    assert len(list(rows)) == 4
    with pytest.raises(IndexError):
        rows[4]


def test_equal_times_become_one_object() -> None:
    hours, instants = [dt.timedelta(hours=1), Duration.hours(1), Duration.hours(1)], [NOW, DateTime.parse(str(NOW))]
    other = Duration.hours(2)
    jobs: list[Any] = [[when, action, {"n": n}] for n, when in enumerate([*hours, other, *instants, *instants, other])]
    made = with_times(jobs)
    assert [(job[1], job[2]) for job in made] == [(action, {"n": n}) for n in range(len(jobs))]
    assert [when for when, _, _ in made] == [*[Duration.hours(1)] * 3, other, *[NOW] * 4, other]
    assert len({id(when) for when, _, _ in made}) == 3


def test_a_signature_is_taken_apart_once_and_its_rows_share_its_options() -> None:
    signature = task.s(7, day=dt.date(2030, 1, 1)).set(priority=3)
    other = {"day": dt.date(2031, 1, 1)}
    jobs: list[Any] = [(FAR, signature, args) for args in (None, {"n": 1}, None, other, {"n": 2})]
    rows, _ = DRAFTS.rows(jobs, NOW, None)
    assert [(row.args, row.options) for row in rows] == [
        (call.args, call.options) for call in (call_of(signature, args) for _, _, args in jobs)
    ]
    assert rows[2].options is rows[3].options is rows[4].options and rows[4].options["args"] == [7]
    with pytest.raises(InvalidArguments):
        DRAFTS.rows([*jobs, (FAR, signature, {"n": object()})], NOW, None)
