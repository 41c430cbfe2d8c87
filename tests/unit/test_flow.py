"""A dispatcher's window: it waits for workers that move on, and for no others."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import pytest

from confect_celery.runtime.flow import Flow


class Table:
    """Rows that workers take one after the other."""

    def __init__(self) -> None:
        self.done: set[str] = set()
        self.now = 0.0
        self.asked = 0
        self.flow = Flow(self.left_of, 10, window=4, monotonic=lambda: self.now)

    def left_of(self, ids: Sequence[str]) -> int:
        self.asked += 1
        return sum(id not in self.done for id in ids)

    def send(self, *names: str) -> None:
        for name in names:
            self.flow.sent([f"{name}{number}" for number in range(10)])

    def run(self, name: str, count: int) -> None:
        self.done |= {f"{name}{number}" for number in range(count)}


def test_nothing_is_asked_until_the_window_is_full() -> None:
    table = Table()
    table.send("a", "b", "c")
    assert not table.flow.full() and table.asked == 0


def test_it_waits_while_workers_move_on_and_goes_on_when_half_of_the_first_batch_has_run() -> None:
    table = Table()
    table.send("a", "b", "c", "d")
    assert table.flow.full()
    for second in range(1, 5):
        table.run("a", second)
        table.now += 2.9
        assert table.flow.full(), "slow, but they move"
    table.run("a", 5)
    assert not table.flow.full()
    table.send("e")
    assert table.flow.full(), "the next batch has not begun"


def test_a_queue_without_a_worker_is_not_waited_for_while_others_have_some() -> None:
    table = Table()
    table.send("a", "b", "c", "d")
    assert table.flow.full()
    table.now += 3.1
    assert not table.flow.full()
    table.send("e")
    assert table.flow.full(), "nobody may work at all"
    table.run("e", 1)
    assert not table.flow.full(), "somebody does"
    table.send("f")
    assert table.flow.full()
    table.now += 1.1
    assert not table.flow.full(), "f may be for those who do not"
    table.send("g")
    table.run("a", 1)
    table.now += 1.1
    assert table.flow.full(), "those for whom it was not waited work again"
    for name in "abc":
        table.run(name, 10)
    table.now += 1.1
    assert table.flow.full(), "d, e, f and g are on their way"
    table.run("d", 10)
    assert not table.flow.full()


def test_rows_that_come_one_by_one_are_counted_together() -> None:
    table = Table()
    for number in range(31):
        table.flow.sent([f"a{number}"])
    assert not table.flow.full() and table.asked == 0
    for number in range(31, 40):
        table.flow.sent([f"a{number}"])
    assert table.flow.full() and table.asked == 1
    table.run("a", 40)
    assert not table.flow.full() and table.asked <= 4


def test_not_all_that_nobody_works_at_is_remembered() -> None:
    table = Table()
    for number in range(100):
        table.now += 3.1
        table.flow.full()
        table.send(f"{number}-")
    assert len(table.flow._sent) <= 10


def test_batches_that_have_run_make_room_at_once() -> None:
    table = Table()
    table.send("a", "b", "c", "d", "e", "f")
    for name in "abc":
        table.run(name, 10)
    assert not table.flow.full() and table.asked == 3


class Workers:
    """They begin `rate` rows a second, in the order in which these were sent; the dispatcher looks every 0.1 s."""

    def __init__(self, rate: float, *, most: int = 500) -> None:
        self.rate = rate
        self.now = self.begun = 0.0
        self.handed = 0
        self.flow = Flow(self.left_of, most, monotonic=lambda: self.now)

    def left_of(self, ids: Sequence[str]) -> int:
        return sum(int(id) >= self.begun for id in ids)

    def on_their_way(self) -> float:
        return self.handed - self.begun

    def look(self) -> None:
        while not self.flow.full():
            batch = self.flow.batch
            self.flow.sent([str(self.handed + number) for number in range(batch)])
            self.handed += batch

    def start(self, seconds: float) -> float:
        """How many rows were handed over until they began."""
        for _ in range(int(seconds / 0.1)):
            self.look()
            self.now += 0.1
        return self.handed

    def work(self, seconds: float) -> float:
        """How many rows were on their way at the most in the second half of that time."""
        most, until, idle = 0.0, self.now + seconds, 0
        while self.now < until:
            self.look()
            assert self.on_their_way() < 2500, "the window is not kept"
            if self.now > until - seconds / 2:
                most = max(most, self.on_their_way())
            self.now += 0.1
            self.begun = min(self.begun + self.rate * 0.1, self.handed)
            idle += self.begun == self.handed
        assert idle <= 4, "they had nothing to do"
        return most


@pytest.mark.parametrize("rate", [20, 100, 230, 600])
def test_a_window_is_what_workers_begin_within_two_seconds(rate: int) -> None:
    workers = Workers(rate)
    assert 0.5 * rate < workers.work(120) < 2.5 * rate


def test_workers_that_take_long_to_start_do_not_get_all_of_it_meanwhile() -> None:
    workers = Workers(0)
    assert workers.start(5) <= 1000
    workers.rate = 100
    workers.work(30)
    assert workers.work(30) < 250


def test_quick_workers_have_the_largest_batches() -> None:
    workers = Workers(3000)
    workers.work(5)
    assert workers.flow.batch == 500


def test_workers_that_are_quick_again_soon_have_larger_batches() -> None:
    workers = Workers(20)
    workers.work(60)
    assert workers.flow.batch < 20
    workers.rate = 2000
    workers.work(3)
    assert workers.flow.batch == 500


def test_slow_workers_have_some_rows_each() -> None:
    workers = Workers(1)
    assert workers.work(4000) < 30


def test_batches_that_are_small_by_the_shops_will_stay_so() -> None:
    workers = Workers(1, most=3)
    workers.work(60)
    assert workers.flow.batch == 3


def test_who_has_caught_up_has_the_largest_batches() -> None:
    workers = Workers(20)
    workers.work(60)
    workers.flow.caught_up()
    assert workers.flow.batch == 500


@pytest.mark.parametrize("rate", [40, 400])
def test_rows_that_nobody_takes_do_not_hold_up_those_of_others(rate: int) -> None:
    """Three of five rows are of a queue without a worker, so that no batch ever passes."""
    table = Table()
    flow, handed = Flow(table.left_of, 500, monotonic=lambda: table.now), 0
    live: deque[str] = deque()
    for _ in range(1200):
        while not flow.full():
            ids = [str(handed + number) for number in range(flow.batch)]
            handed += flow.batch
            live += [id for id in ids if int(id) % 5 > 2]
            flow.sent(ids)
        table.now += 0.1
        table.done |= {live.popleft() for _ in range(min(rate // 10, len(live)))}
    assert len(table.done) > 0.9 * rate * 120 - 3 * rate
