"""What a worker holds in memory, and burns while idle, with jobs pending: rows of ours, ETA messages of Celery's."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Final

import psutil

from bench.contenders import Shop
from bench.report import Goal
from bench.run import Run
from confect_celery.testing.servers import until

__all__ = ["GOALS", "measure"]

_NAME: Final = "memory"
_AT_REST: Final = 0.03
"""Who burns no more CPU than this in a second has done what there is to do after a start."""

GOALS: Final = [
    Goal(_NAME, "ours, 1,000,000 pending", 10, at_least=False, beside="ours, 0 pending", apart=True),
]


@dataclass(frozen=True)
class _Idle:
    """A worker at rest: its parent, where the dispatcher and held messages live, and its children."""

    line: str
    parent: psutil.Process

    def burnt(self) -> float:
        family = [self.parent, *self.parent.children(recursive=True)]
        return sum(sum(each.cpu_times()[:2]) for each in family)


def measure(run: Run) -> None:
    """RSS of the workers' parents; CPU of them and their children, counted for each, so that all rest at once."""
    with ExitStack() as stack:
        idle: list[_Idle] = []
        for count in (0, 2_000) if run.quick else (0, 10_000, 100_000):
            shop = stack.enter_context(run.shop(database=None))
            for n in range(count):
                shop.module.plain.apply_async((n,), countdown=86400)
            idle.append(_Idle(f"celery eta, {count:,} held", psutil.Process(shop.worker().pid)))
            until(partial(_all_taken, shop), f"{count} ETA tasks to be taken in", within=180)
        for count in (0, 1_000_000) if run.quick else (0, 100_000, 1_000_000):
            shop = stack.enter_context(run.shop(pending=count))
            idle.append(_Idle(f"ours, {count:,} pending", psutil.Process(shop.worker().pid)))
        until(partial(_at_rest, idle), "the workers to come to rest", within=60)
        before = [each.burnt() for each in idle]
        watch = run.size(3, 15)
        time.sleep(watch)
        used = [each.burnt() - was for each, was in zip(idle, before, strict=True)]
        for each, seconds in zip(idle, used, strict=True):
            run.sample(_NAME, each.line, "MiB", each.parent.memory_info().rss / 2**20)
            run.sample(_NAME, f"{each.line}, idle CPU", "%", seconds / watch * 100)


def _at_rest(idle: list[_Idle]) -> bool:
    before = [each.burnt() for each in idle]
    time.sleep(1)
    return all(each.burnt() - was <= _AT_REST for each, was in zip(idle, before, strict=True))


def _all_taken(shop: Shop) -> bool:
    """Whether the worker holds all messages."""
    with shop.app.connection_for_read() as connection:
        return int(connection.default_channel.client.llen("celery")) == 0
