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
        self.backlog: dict[str, deque[int]] = defaultdict(deque)
        for number in range(100_000):
            self.backlog[names[number % len(names)]].append(number)
        self.sent: dict[str, deque[str]] = defaultdict(deque)
        self.begun: dict[str, int] = defaultdict(int)
        self.done: set[str] = set()
        self.windows = Windows(self.left_of, 500, monotonic=lambda: self.now)

    def left_of(self, ids: Sequence[str]) -> int:
        self.asked += 1
        return sum(id not in self.done for id in ids)

    def find(self, batch: int, but: Sequence[str]) -> list[tuple[str, str]]:
        found: list[tuple[str, str]] = []
        others = {name: rows for name, rows in self.backlog.items() if rows and name not in but}
        while others and len(found) < batch:
            name = min(others, key=lambda name: others[name][0])
            found.append((name, str(others[name].popleft())))
            if not others[name]:
                del others[name]
        return found

    def work(self, seconds: float) -> None:
        for _ in range(int(seconds * 10)):
            while True:
                full = self.windows.full()
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


def test_a_stream_goes_out_in_the_largest_batches() -> None:
    windows = Windows(lambda ids: 0, 500)
    assert windows.batch == 250
    windows.caught_up(["unknown"])
    assert windows.batch == 500
    windows.sent([("unknown", "1")])
    assert windows.batch == 250
    windows.caught_up(["unknown"])
    assert windows.batch == 500


def test_a_slow_backlog_that_is_gone_does_not_make_a_streams_batches_small() -> None:
    shop = Shop({"slow": 10}, ["slow"])
    shop.work(60)
    shop.backlog.clear()
    shop.work(60)
    assert shop.windows.batch < 20
    shop.windows.caught_up(["stream"])
    assert shop.windows.batch == 500
