"""The floor of a dispatcher's looks: it rises with what they find, and gives way to full ones in time."""

from __future__ import annotations

from confect_celery.runtime.floor import Floor
from confect_celery.timing import DateTime, Duration

NOW = DateTime.parse("2030-01-01T00:00:00Z")
SLOW, CHEAP = Duration.millis(50), Duration.millis(1)
SECOND = Duration.seconds(1)


def test_the_first_look_is_a_full_one() -> None:
    assert Floor().since(NOW) is None


def test_while_full_looks_are_cheap_every_poll_is_one() -> None:
    floor = Floor()
    floor.looked(NOW, None, None, CHEAP)
    assert floor.since(NOW + SECOND) is None


def test_after_a_slow_full_look_the_next_begin_shortly_before_what_it_found() -> None:
    floor = Floor()
    oldest = NOW - Duration.minutes(10)
    floor.looked(NOW, None, oldest, SLOW)
    since = floor.since(NOW + SECOND)
    assert since is not None
    assert oldest - Duration.minutes(1) < since < oldest


def test_where_nothing_waits_the_next_begin_shortly_before_now() -> None:
    floor = Floor()
    floor.looked(NOW, None, None, SLOW)
    assert floor.since(NOW + SECOND) == NOW - Duration.seconds(5)
    ahead = NOW + Duration.seconds(2)  # the first that is due, but not yet
    floor.looked(NOW, None, ahead, SLOW)
    assert floor.since(NOW + SECOND) == NOW - Duration.seconds(5)


def test_it_rises_with_bounded_looks_and_never_sinks_by_one() -> None:
    floor = Floor()
    floor.looked(NOW, None, None, SLOW)
    first = floor.since(NOW + SECOND)
    floor.looked(NOW + SECOND, first, None, CHEAP)
    second = floor.since(NOW + SECOND * 2)
    assert first is not None
    assert second == first + SECOND
    floor.looked(NOW + SECOND * 2, second, second, CHEAP)  # a row that stands just at the bound
    assert floor.since(NOW + SECOND * 3) == second


def test_a_full_look_comes_in_time_however_slow_it_is() -> None:
    floor = Floor()
    floor.looked(NOW, None, None, Duration.seconds(3))
    assert floor.since(NOW + Duration.seconds(9)) is not None
    assert floor.since(NOW + Duration.seconds(10)) is None


def test_full_looks_take_at_most_a_hundredth_of_the_time() -> None:
    floor = Floor()
    floor.looked(NOW, None, None, SLOW)
    assert floor.since(NOW + SLOW * 99) is not None
    assert floor.since(NOW + SLOW * 100) is None


def test_bounded_looks_do_not_put_off_the_full_one() -> None:
    floor = Floor()
    floor.looked(NOW, None, None, SLOW)
    floor.looked(NOW + SECOND, NOW, None, SLOW)
    assert floor.since(NOW + SLOW * 100) is None
