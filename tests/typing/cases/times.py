"""Arithmetic and order of durations and points in time."""

# ruff: noqa: B015
from __future__ import annotations

import datetime as dt
from typing import assert_type

from confect_celery import DateTime, Duration

hour = Duration.hours(1)
now = DateTime.now()

assert_type(hour + hour, Duration)
assert_type(hour - dt.timedelta(1), Duration)
assert_type(dt.timedelta(1) + hour, Duration)
assert_type(hour * 2, Duration)
assert_type(0.5 * hour, Duration)
assert_type(hour / 2, Duration)
assert_type(hour / hour, float)
assert_type(-abs(hour), Duration)
assert_type(hour < Duration.zero, bool)
assert_type(max(hour, Duration.zero), Duration)
assert_type(hour.to_timedelta(), dt.timedelta)
hour + 1  # E
1 + hour  # E
hour - 1  # E
hour * hour  # E
hour * "2"  # E
hour < 3600  # E
hour >= 3600.0  # E
hour > now  # E
Duration.hours("1")  # E
Duration.of(3)  # E
Duration.seconds(1).seconds = 2  # E

assert_type(now + hour, DateTime)
assert_type(hour + now, DateTime)
assert_type(now - hour, DateTime)
assert_type(now - dt.timedelta(1), DateTime)
assert_type(now - now, Duration)
assert_type(now < now, bool)
assert_type(sorted([now, now]), list[DateTime])
assert_type(now.add(days=1).set(hour=9), DateTime)
assert_type(now.in_zone("Europe/Paris"), DateTime)
assert_type(now.to_datetime(), dt.datetime)
now + now  # E
now + 1  # E
now - 1  # E
hour - now  # E
now < 3  # E
now <= hour  # E
now > dt.datetime.now(dt.UTC)  # E
DateTime.of("2030-01-01T00:00:00Z")  # E
DateTime.of(dt.date(2030, 1, 1))  # E
now.add(days=1, disambiguate="maybe")  # E
now.set(hour="9")  # E
