"""The times of crons, and what a cron may not be."""

from __future__ import annotations

import pytest

from confect_celery import CronJob, CronJobs, DateTime, Duration, InvalidCron
from confect_celery.crons import schedule_of


def at(text: str) -> DateTime:
    return DateTime.parse(text)


def walk(spec: str, zone: str, start: str, count: int) -> list[str]:
    schedule = schedule_of(spec, zone)
    times = [schedule.first(at(start))]
    while len(times) < count:
        times.append(schedule.fires(times[-1], times[-1]).next)
    return [str(time) for time in times]


def test_the_wall_clock() -> None:
    assert walk("0 9 * * 1-5", "UTC", "2026-11-20T09:00:00Z", 2) == ["2026-11-23T09:00:00Z", "2026-11-24T09:00:00Z"]
    assert walk("*/20 * * * * *", "UTC", "2026-01-01T00:00:01Z", 2) == ["2026-01-01T00:00:20Z", "2026-01-01T00:00:40Z"]
    assert walk("0 0 L * *", "UTC", "2028-02-01T00:00:00Z", 1) == ["2028-02-29T00:00:00Z"]


@pytest.mark.parametrize(
    ("spec", "zone", "start", "times"),
    [
        # A fixed time in the gap runs once, when the gap is over.
        ("30 2 * * *", "Europe/Paris", "2026-03-28T12:00:00Z", ["2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"]),
        ("30 2 * * *", "America/New_York", "2026-03-07T12:00:00Z", ["2026-03-08T07:00:00Z", "2026-03-09T06:30:00Z"]),
        # A fixed time in the fold runs once, the first time it comes.
        ("30 2 * * *", "Europe/Paris", "2026-10-24T12:00:00Z", ["2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"]),
        ("30 1 * * *", "America/New_York", "2026-10-31T12:00:00Z", ["2026-11-01T05:30:00Z", "2026-11-02T06:30:00Z"]),
        # What runs every hour goes by real hours.
        ("30 * * * *", "Europe/Paris", "2026-10-25T00:00:00Z", ["2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z"]),
        ("30 * * * *", "America/New_York", "2026-03-08T06:00:00Z", ["2026-03-08T06:30:00Z", "2026-03-08T07:30:00Z"]),
    ],
)
def test_daylight_saving(spec: str, zone: str, start: str, times: list[str]) -> None:
    assert walk(spec, zone, start, len(times)) == times


@pytest.mark.parametrize(
    ("spec", "due", "now", "latest", "missed", "following"),
    [
        ("0 * * * *", "10:00", "10:00", "10:00", 0, "11:00"),
        ("0 * * * *", "10:00", "13:30", "13:00", 3, "14:00"),
        (Duration.minutes(20), "10:07", "10:08", "10:07", 0, "10:27"),
        (Duration.minutes(20), "10:07", "11:08", "11:07", 3, "11:27"),
    ],
)
def test_fires_until_now(spec: str | Duration, due: str, now: str, latest: str, missed: int, following: str) -> None:
    day = "2026-11-23T{}:00Z".format
    fires = schedule_of(spec).fires(at(day(due)), at(day(now)))
    assert (fires.latest, fires.missed, fires.next) == (at(day(latest)), missed, at(day(following)))


def test_a_long_outage_is_counted_up_to_a_bound() -> None:
    fires = schedule_of("* * * * *").fires(at("2020-01-01T00:00:00Z"), at("2026-01-01T00:00:30Z"))
    assert fires.missed == 10_000 and fires.next == at("2026-01-01T00:01:00Z")


@pytest.mark.parametrize(
    ("spec", "zone", "reason"),
    [
        ("0 0 30 2 *", "UTC", "day-of-month"),
        ("0 0 31 2,4 *", "UTC", "day-of-month"),
        ("61 * * * *", "UTC", "minute"),
        ("hello", "UTC", "fields"),
        ("* * * * *", "Mars/Olympus", "time zone"),
        (Duration.millis(500), "UTC", "1s or longer"),
        (Duration.zero, "UTC", "1s or longer"),
        (Duration.seconds(-5), "UTC", "1s or longer"),
        (60, "UTC", "Duration"),
    ],
)
def test_what_is_no_schedule(spec: object, zone: str, reason: str) -> None:
    with pytest.raises(InvalidCron, match=reason) as caught:
        CronJob("nightly", spec, "f", zone=zone)  # type: ignore[arg-type]
    assert caught.value.name == "nightly"


def test_names() -> None:
    crons = CronJobs().add(CronJob("a", Duration.hours(1), "f"))
    with pytest.raises(InvalidCron, match="another cron"):
        crons.add(CronJob("a", Duration.hours(2), "f"))
    for name in ("", "x" * 256):
        with pytest.raises(InvalidCron):
            CronJob(name, Duration.hours(1), "f")
