"""Clocks: the machine's with an offset, and one that is moved by hand."""

from __future__ import annotations

import datetime as dt
import threading
from typing import Any

import pytest

from confect_celery.errors import InvalidTime, NaiveDateTime
from confect_celery.timing import Clock, DateTime, Duration, SettableClock, SystemClock

START = DateTime.parse("2030-01-01T00:00:00Z")


def test_the_system_clock_is_the_machines() -> None:
    clock: Clock = SystemClock()
    before = dt.datetime.now(dt.UTC)
    now = clock.now()
    after = dt.datetime.now(dt.UTC)
    assert now.zone == "UTC"
    assert before <= now.to_utc() <= after


@pytest.mark.parametrize("offset", [Duration.hours(3), Duration.hours(-3), Duration.zero])
def test_it_is_ahead_by_its_offset(offset: Duration) -> None:
    clock = SystemClock()
    assert clock.offset == Duration.zero
    clock.adjust(Duration.days(7))
    clock.adjust(offset)  # replaces the earlier one
    assert clock.offset == offset
    assert abs(clock.now() - DateTime.now() - offset) < Duration.minutes(1)
    assert abs(SystemClock(offset).now() - clock.now()) < Duration.minutes(1)


def test_an_offset_is_no_bare_number() -> None:
    clock: Any = SystemClock()
    with pytest.raises(InvalidTime):
        clock.adjust(1.5)
    assert clock.offset == Duration.zero


def test_a_settable_clock_stands_still_until_it_is_moved() -> None:
    clock = SettableClock(START)
    assert clock.now() == clock.now() == START
    clock.advance(Duration.minutes(5))
    clock.advance(dt.timedelta(minutes=5))
    clock.advance(Duration.zero)
    assert clock.now() == START + Duration.minutes(10)
    assert DateTime.now(clock=clock) == clock.now()


def test_it_goes_back_only_when_it_is_set() -> None:
    clock = SettableClock(START)
    with pytest.raises(InvalidTime, match="set\\(\\)"):
        clock.advance(Duration.micros(-1))
    assert clock.now() == START
    clock.set(START - Duration.days(1))
    assert clock.now() == START - Duration.days(1)


def test_it_tells_utc_whatever_zone_it_was_given() -> None:
    clock = SettableClock(START.in_zone("Asia/Tokyo"))
    assert (clock.now(), clock.now().zone) == (START, "UTC")
    clock.set(START.in_zone("Europe/Paris"))
    assert clock.now().zone == "UTC"
    assert DateTime.now("Asia/Tokyo", clock=clock).hour == 9


def test_without_a_start_it_stands_at_the_present() -> None:
    before = DateTime.now()
    clock = SettableClock()
    assert before <= clock.now() <= DateTime.now()


def test_it_takes_no_naive_time_and_no_number() -> None:
    clock: Any = SettableClock(START)
    with pytest.raises(NaiveDateTime):
        clock.set(dt.datetime(2030, 1, 1))  # noqa: DTZ001
    with pytest.raises(InvalidTime):
        clock.advance(5)
    assert clock.now() == START


def test_no_advance_is_lost_between_threads() -> None:
    clock = SettableClock(START)

    def advance() -> None:
        for _ in range(500):
            clock.advance(Duration.micros(1))

    threads = [threading.Thread(target=advance) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert clock.now() - START == Duration.micros(4000)
