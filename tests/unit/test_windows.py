"""The backlog of one function does not hold up those of others."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Sequence

import pytest

from confect_celery.runtime.windows import Windows


class Shop:
    """Rows of some functions, all due, and workers that begin so many of each in a second."""

    def __init__(self, rates: dict[str, float], names: Sequence[str]) -> None:
        """The backlog is made of `names` again and again."""
        self.rates, self.now, self.asked = rates, 0.0, 0
        self.backlog = deque((names[number % len(names)], str(number)) for number in range(100_000))
        self.sent: dict[str, deque[str]] = defaultdict(deque)
        self.begun: dict[str, int] = defaultdict(int)
        self.done: set[str] = set()
        self.windows = Windows(self.left_of, 500, monotonic=lambda: self.now)

    def left_of(self, ids: Sequence[str]) -> int:
        self.asked += 1
        return sum(id not in self.done for id in ids)

    def find(self, batch: int, but: Sequence[str]) -> list[tuple[str, str]]:
        found: list[tuple[str, str]] = []
        passed: list[tuple[str, str]] = []
        while self.backlog and len(found) < batch:
            row = self.backlog.popleft()
            (passed if row[0] in but else found).append(row)
        self.backlog.extendleft(reversed(passed))
        self.windows.looked_past(len(passed) / 1_000_000)
        return found

    def work(self, seconds: float) -> None:
        for _ in range(int(seconds * 10)):
            while True:
                full = self.windows.full()
                if full and not self.windows.may_look_past:
                    break
                batch = self.windows.batch
                found = self.find(batch, full)
                for name, id in found:
                    self.sent[name].append(id)
                if len(found) < batch:
                    break
                self.windows.sent(found)
            self.now += 0.1
            for name, rate in self.rates.items():
                for _ in range(int(rate * self.now) - self.begun[name]):
                    if self.sent[name]:
                        self.done.add(self.sent[name].popleft())
                        self.begun[name] += 1


@pytest.mark.parametrize("slow", [0, 0.2, 1, 5])
@pytest.mark.parametrize("quick", [40, 400])
def test_quick_ones_go_on_beside_slow_ones_and_such_as_nobody_runs(quick: int, slow: float) -> None:
    shop = Shop({"quick": quick, "slow": slow}, ["slow", "slow", "slow", "quick", "quick"])
    shop.work(60)
    assert shop.begun["quick"] > 0.9 * 60 * quick
    assert shop.begun["slow"] >= int(0.9 * 60 * slow)


def test_few_of_what_is_slow_are_on_their_way() -> None:
    shop = Shop({"quick": 400, "slow": 10}, ["slow", "slow", "slow", "quick", "quick"])
    shop.work(120)
    assert len(shop.sent["slow"]) < 60
    assert len(shop.sent["quick"]) < 1000


def test_many_functions_cost_no_more_than_a_few() -> None:
    names = [f"function {number}" for number in range(60)]
    shop = Shop(dict.fromkeys(names, 5), names)
    shop.work(60)
    assert all(shop.begun[name] > 0.8 * 60 * 5 for name in names)
    before = shop.asked
    shop.work(10)
    assert shop.asked - before < 100 * 8 * 4, "eight a look, and each as it passes"


def test_not_every_name_that_ever_was_is_remembered() -> None:
    windows = Windows(lambda ids: 0, 500)
    for number in range(1000):
        windows.sent([(f"function {number}", str(number))])
    assert len(windows._flows) <= 200


def test_looks_past_a_large_backlog_are_rare() -> None:
    now = 0.0
    windows = Windows(lambda ids: len(ids), 500, monotonic=lambda: now)
    assert windows.may_look_past
    windows.looked_past(0.02)
    now = 1.9
    assert not windows.may_look_past
    now = 2.0
    assert windows.may_look_past
    windows.looked_past(10)
    now = 7.0
    assert windows.may_look_past, "however long it takes"


def test_who_finds_others_there_looks_again_at_once() -> None:
    now = 0.0
    windows = Windows(lambda ids: len(ids), 10, monotonic=lambda: now)

    def send(name: str) -> None:
        windows.sent([(name, str(number)) for number in range(windows.batch)])

    send("slow"), send("slow")
    assert windows.full() == ["slow"]
    windows.looked_past(1)
    assert not windows.may_look_past
    send("quick")
    assert windows.may_look_past
    windows.looked_past(1)
    assert not windows.may_look_past


def test_a_backlog_of_one_function_is_not_looked_past_again_and_again() -> None:
    now, begun = 0.0, 0
    windows = Windows(lambda ids: sum(int(id) >= begun for id in ids), 10, monotonic=lambda: now)

    def send(first: int) -> None:
        windows.sent([("slow", str(number)) for number in range(first, first + 10)])

    send(0), send(10)
    assert windows.full() == ["slow"]
    windows.looked_past(1)
    begun = 5
    assert windows.full() == []
    send(20)
    assert windows.full() == ["slow"] and not windows.may_look_past


def test_a_stream_goes_out_in_the_largest_batches() -> None:
    windows = Windows(lambda ids: 0, 500)
    assert windows.batch == 250
    windows.caught_up(["unknown"])
    assert windows.batch == 500
    windows.sent([("unknown", "1")])
    assert windows.batch == 250
    windows.caught_up(["unknown"])
    assert windows.batch == 500
