"""Monthly and daily reports."""

from __future__ import annotations

import pytest

from confect_celery import DateTime, Duration, StateKind
from confect_celery.testing import Harness
from tasks import refs
from tasks.reports import Monthly, StartDaily, daily, monthly, nine_tomorrow, start_daily, start_monthly


def months(first: str, count: int) -> list[str]:
    return [str(Monthly(first=DateTime.parse(first), number=n).due_at.to_utc().date()) for n in range(count)]


def test_the_monthly_report_schedules_the_next_months(shop: Harness) -> None:
    first = DateTime.parse("2026-03-08T12:00:00Z")
    id = shop.confect.run_mutation(start_monthly, Monthly(first=first))
    assert shop.assert_scheduled(monthly, at=first).id == id
    for due in ("2026-03-08", "2026-04-08", "2026-05-08"):
        (row,) = shop.scheduled(monthly)
        assert row.scheduled_time == DateTime.parse(f"{due}T12:00:00Z")
        shop.clock.set(row.scheduled_time)
        (ran,) = shop.run_due()
        assert ran.state.kind is StateKind.SUCCESS
    with shop.confect.reader() as db:
        reports = db.table("reports").order("asc", by="due_at").collect()
    assert [report.due_at for report in reports] == [
        DateTime.parse(f"2026-{month}-08T12:00:00Z") for month in ("03", "04", "05")
    ]
    assert reports[0].made_by == id


def test_by_name_and_mapping(shop: Harness) -> None:
    when = DateTime.parse("2026-03-08T12:00:00Z")
    shop.confect.scheduler.run_at(when, refs.internal.reports.monthly, {"first": "2026-03-08T12:00:00Z"})
    shop.assert_scheduled(monthly, Monthly(first=when), at=when)


def test_months_do_not_drift() -> None:
    assert months("2026-01-31T12:00:00Z", 4) == ["2026-01-31", "2026-02-28", "2026-03-31", "2026-04-30"]


def test_a_worker_that_was_away_makes_up_for_the_months(shop: Harness) -> None:
    shop.confect.run_mutation(start_monthly, Monthly(first=DateTime.parse("2026-03-08T12:00:00Z")))
    shop.clock.set(DateTime.parse("2026-05-20T00:00:00Z"))
    for _ in range(3):
        (ran,) = shop.run_due()
        assert ran.state.kind is StateKind.SUCCESS
        shop.advance(Duration.seconds(1))
    assert shop.run_due() == []
    shop.assert_scheduled(monthly, at=DateTime.parse("2026-06-08T12:00:00Z"))


@pytest.mark.parametrize(
    ("now", "zone", "nine"),
    [
        ("2026-03-01T10:00:00Z", "UTC", "2026-03-02T09:00:00Z"),
        ("2026-03-01T10:00:00Z", "Europe/Paris", "2026-03-02T08:00:00Z"),
        ("2026-03-28T10:00:00Z", "Europe/Paris", "2026-03-29T07:00:00Z"),  # clocks go forward that night
        ("2026-10-24T10:00:00Z", "Europe/Paris", "2026-10-25T08:00:00Z"),  # and back
        ("2026-03-01T20:00:00Z", "Asia/Tokyo", "2026-03-03T00:00:00Z"),  # it is tomorrow already in Tokyo
        ("2026-03-01T03:00:00Z", "America/New_York", "2026-03-01T14:00:00Z"),  # and yesterday in New York
    ],
)
def test_nine_tomorrow(now: str, zone: str, nine: str) -> None:
    assert nine_tomorrow(DateTime.parse(now).in_zone(zone)) == DateTime.parse(nine)


def test_the_daily_report_comes_at_nine_every_morning(shop: Harness, postbox: list[tuple[str, str]], ada: str) -> None:
    shop.clock.set(DateTime.parse("2026-03-27T15:00:00Z"))
    shop.confect.run_mutation(start_daily, StartDaily(user_id=ada))
    due = []
    for _ in range(3):
        (row,) = shop.scheduled(daily)
        due.append(row.scheduled_time)
        shop.clock.set(row.scheduled_time)
        shop.run_due()
        shop.advance(Duration.seconds(1))
        shop.run_due()
    # In Paris the clocks went forward on the 29th: 23 hours lay between two reports, and it is 9:00 all the same.
    assert due == [DateTime.parse(f"2026-03-{t}:00:00Z") for t in ("28T08", "29T07", "30T07")]
    assert len(postbox) == 3
