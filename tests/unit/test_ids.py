"""Ids grow with time, also within one microsecond, and are valid UUIDs of version 7."""

from __future__ import annotations

import os
import threading
import uuid

from confect_celery import DateTime, Duration
from confect_celery.store import new_id
from confect_celery.store.ids import first_id_at, new_ids

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


def test_many_at_once_are_ids_like_the_others() -> None:
    before = new_id(NOW)
    many = new_ids(NOW, 10_000)
    after = new_id(NOW)
    assert [before, *many, after] == sorted({before, *many, after})
    for made in map(uuid.UUID, many):
        assert (made.version, made.variant) == (7, uuid.RFC_4122)
        assert made.int >> 80 == NOW.epoch_millis
    assert new_ids(NOW, 0) == []


def test_threads_share_no_id() -> None:
    made: list[list[str]] = []
    start = threading.Barrier(4)

    def make() -> None:
        start.wait()
        made.append([id for _ in range(50) for id in (*new_ids(NOW, 20), new_id(NOW))])

    threads = [threading.Thread(target=make) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(ids == sorted(ids) for ids in made), "each thread's own are in order"
    assert len({id for ids in made for id in ids}) == 4 * 50 * 21


def test_a_forked_child_makes_other_ids_than_its_parent() -> None:
    new_id(NOW)  # random bytes are ready, and the child inherits them
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, "".join([*new_ids(NOW, 100), new_id(NOW)]).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        text = pipe.read().decode()
    assert os.waitpid(child, 0)[1] == 0
    theirs = {text[at : at + 36] for at in range(0, len(text), 36)}
    assert len(theirs) == 101
    assert theirs.isdisjoint([*new_ids(NOW, 100), new_id(NOW)])
