"""Ids grow with time, also within one microsecond, and are valid UUIDs of version 7."""

from __future__ import annotations

import uuid

from confect_celery import DateTime, Duration
from confect_celery.store import new_id
from confect_celery.store.ids import first_id_at

NOW = DateTime.parse("2030-01-01T00:00:00.123456Z")


def test_ids_of_one_instant_are_distinct_and_in_order() -> None:
    ids = [new_id(NOW) for _ in range(10_000)]
    assert ids == sorted(set(ids))


def test_ids_sort_by_time_to_the_microsecond() -> None:
    steps = [NOW + Duration.micros(n) for n in (0, 1, 2, 543, 544, 999, 1000, 10**6)]
    ids = [new_id(when) for when in steps]
    assert ids == sorted(ids)
    # A clock that goes back gives smaller ids again.
    assert new_id(NOW - Duration.seconds(1)) < ids[0]


def test_an_id_is_a_uuid_of_version_7_and_tells_its_millisecond() -> None:
    for _ in range(100):
        made = uuid.UUID(new_id(NOW))
        assert (made.version, made.variant) == (7, uuid.RFC_4122)
        assert made.int >> 80 == NOW.epoch_millis
    assert first_id_at(NOW) <= new_id(NOW) < first_id_at(NOW + Duration.millis(1))
