"""A dispatcher's window: it waits for workers that move on, and for no others."""

from __future__ import annotations

from collections.abc import Sequence

from confect_celery.runtime.flow import Flow


class Table:
    """Rows that workers take one after the other."""

    def __init__(self) -> None:
        self.done: set[str] = set()
        self.now = 0.0
        self.asked = 0
        self.flow = Flow(self.left_of, window=4, monotonic=lambda: self.now)

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


def test_a_queue_without_a_worker_is_not_waited_for_until_workers_move_again() -> None:
    table = Table()
    table.send("a", "b", "c", "d")
    assert table.flow.full()
    table.now += 3.1
    assert not table.flow.full()
    table.send("e")
    assert not table.flow.full(), "nor the next batches, once it is known"
    table.run("c", 1)
    table.send("f")
    assert table.flow.full(), "somebody works"


def test_batches_that_have_run_make_room_at_once() -> None:
    table = Table()
    table.send("a", "b", "c", "d", "e", "f")
    for name in "abc":
        table.run(name, 10)
    assert not table.flow.full() and table.asked == 3
