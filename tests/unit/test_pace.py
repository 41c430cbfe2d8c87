"""When an outbox gathers rows, and when it does not."""

from __future__ import annotations

from confect_celery.runtime.pace import Pace, Upcoming


class Time:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def go(pace: Pace, time: Time, per_second: int, seconds: float) -> None:
    for _ in range(int(per_second * seconds)):
        time.now += 1 / per_second
        pace.went([f"r{time.now}"])


def test_few_go_out_at_once_and_many_are_gathered_for_a_moment() -> None:
    time = Time()
    pace = Pace(monotonic=time)
    assert pace.wait(0) == 0.0
    go(pace, time, 70, 1.0)
    assert pace.wait(0) == 0.0 and pace.ahead(0) == 0 and pace.spread(2, 0) == 4, "a burst is for more than one child"
    go(pace, time, 90, 1.0)
    assert 0.005 < pace.wait(0) < 0.0061 and pace.spread(3, 0) == 1
    assert pace.spread(9, 0) == 4, "a burst is one too where some went before"
    go(pace, time, 230, 1.0)
    assert pace.wait(0) > 0 and pace.wait(0, shared=False) == 0.0, "in messages of their own they would only be late"
    go(pace, time, 400, 1.0)
    assert 0.005 < pace.wait(0) < 0.0061 and pace.wait(0, shared=False) == pace.wait(0) and pace.spread(9, 0) == 1
    go(pace, time, 1000, 0.5)
    assert 0.009 < pace.wait(0) < 0.0101, "from the last that went out"
    time.now += 0.006
    assert 0.003 < pace.wait(0) < 0.005
    time.now += 0.005
    assert pace.wait(0) == 0.0, "and no longer than that"
    go(pace, time, 70, 0.5)
    assert pace.wait(0) == 0.0


def test_what_is_gathered_goes_out_before_its_time_by_as_long_and_by_its_way() -> None:
    time = Time()
    pace = Pace(monotonic=time)
    assert pace.ahead(19) == 0 and pace.ahead(20) == 12_000 and pace.ahead(150) == 16_000
    go(pace, time, 100, 1.0)
    assert pace.ahead(0) == 12_000
    pace.hear(40, of=40)
    assert pace.ahead(0) == 20_000, "but no child waits for long"


def test_more_are_gathered_while_workers_are_behind() -> None:
    time = Time()
    pace = Pace(monotonic=time)
    go(pace, time, 200, 1.0)
    pace.hear(20, of=40)
    assert pace.wait(0) < 0.0061 and pace.spread(30, 0) == 4, "half of them started"
    pace.hear(21, of=40)
    assert 0.023 < pace.wait(0) < 0.0241, "they wait anyway"
    assert pace.spread(30, 0) == 1, "no child is free"
    pace.hear(40, of=40)
    pace.hear(40, of=40)
    assert 0.09 < pace.wait(0) < 0.101, "but not for ever"
    go(pace, time, 50, 1.0)
    assert pace.wait(0) == 0.0, "of so few each has a worker to itself"
    go(pace, time, 200, 1.0)
    pace.hear(1, of=40)
    assert pace.wait(0) > 0.09, "until all have started"
    pace.hear(0, of=40)
    go(pace, time, 400, 1.0)
    assert 0.07 < pace.wait(0) < 0.08, "what has let them catch up is given up step by step"
    for _ in range(20):
        pace.hear(0, of=40)
    assert pace.wait(0) < 0.0061


def test_the_sample_is_of_what_should_have_started_by_now() -> None:
    time = Time()
    pace = Pace(monotonic=time)
    go(pace, time, 20, 0.4)
    assert pace.sample() == []
    go(pace, time, 500, 5.0)
    sample = pace.sample()
    assert 10 <= len(sample) <= 50
    ages = [time.now - float(id.removeprefix("r")) for id in sample]
    assert min(ages) >= 0.3 and max(ages) <= 1.5
    time.now += 2
    assert pace.sample() == [], "what went out long ago tells nothing of now"


def test_what_is_about_to_come_counts_as_what_has_gone() -> None:
    time = Time()
    pace = Pace(monotonic=time)
    assert pace.wait(500) == 0.0, "the first need not wait"
    pace.went(["r"])
    assert 0.005 < pace.wait(20) < 0.0061 and pace.wait(19) == 0.0
    assert 0.009 < pace.wait(150) < 0.0101
    assert pace.spread(20, 125) == 1, "what has gathered in a stream"
    assert pace.spread(21, 125) == 4, "what comes later does not make a burst a stream"
    assert pace.spread(2, 19) == 4, "nor do few"


def test_more_are_gathered_while_messages_wait_for_a_child() -> None:
    time, waiting = Time(), [0]
    pace = Pace(lambda: waiting[0], monotonic=time)
    go(pace, time, 400, 1.0)
    time.now += 0.007
    waiting[0] = 1
    assert pace.wait(0) == 0.0
    waiting[0] = 2
    assert 0.001 < pace.wait(0) <= 0.002, "that is seen soon"
    time.now += 0.004
    assert 0.0 < pace.wait(0) < 0.0011
    time.now += 0.002
    assert pace.wait(0) == 0.0, "but not for ever"
    go(pace, time, 800, 1.0)
    time.now += 0.019
    assert 0.0 < pace.wait(0) < 0.0011, "of more, for longer"
    time.now += 0.002
    assert pace.wait(0) == 0.0
    go(pace, time, 70, 1.0)
    assert pace.wait(0) == 0.0, "of few each has a message to itself"


def test_rows_are_counted_by_when_they_are_due() -> None:
    upcoming = Upcoming()
    for due in range(0, 1_000_000, 10_000):
        upcoming.add(due)
    assert upcoming.after(0) == 25 and upcoming.after(500_000) == 25 and upcoming.after(2_000_000) == 0
    for due in range(0, 1_000_000, 20_000):
        upcoming.remove(due)
    assert 12 <= upcoming.after(0) <= 13
