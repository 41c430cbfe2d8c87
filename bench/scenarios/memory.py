"""What a worker holds in memory, and burns while idle, with jobs pending: rows of ours, ETA messages of Celery's."""

from __future__ import annotations

import time
from typing import Final

import psutil

from bench import fill
from bench.contenders import Shop
from bench.report import Goal
from bench.run import Run
from confect_celery.testing.servers import until

__all__ = ["GOALS", "measure"]

_NAME: Final = "memory"
_SETTLE: Final = 3.0

GOALS: Final = [
    Goal(_NAME, "ours, 1,000,000 pending", 10, at_least=False, beside="ours, 0 pending", apart=True),
]


def measure(run: Run) -> None:
    """RSS of the worker's parent, where the dispatcher and held messages live; CPU of it and its children."""
    for count in (0, 100_000) if run.quick else (0, 100_000, 1_000_000):
        with run.shop() as shop:
            fill.pending(shop, count)
            _watch(run, shop, f"ours, {count:,} pending")
    for count in (0, 3_000) if run.quick else (0, 10_000, 100_000):
        with run.shop(database=None) as shop:
            for n in range(count):
                shop.module.plain.apply_async((n,), countdown=86400)
            _watch(run, shop, f"celery eta, {count:,} held", count)


def _watch(run: Run, shop: Shop, line: str, held: int = 0) -> None:
    worker = psutil.Process(shop.worker().pid)
    if held:
        until(lambda: _queued(shop) == 0, f"{held} ETA tasks to be taken in", within=180)
    time.sleep(_SETTLE)  # what is measured is a worker at rest
    family = [worker, *worker.children(recursive=True)]
    before = sum(sum(each.cpu_times()[:2]) for each in family)
    watch = run.size(4, 15)
    time.sleep(watch)
    used = sum(sum(each.cpu_times()[:2]) for each in family) - before
    run.sample(_NAME, line, "MiB", worker.memory_info().rss / 2**20)
    run.sample(_NAME, f"{line}, idle CPU", "%", used / watch * 100)


def _queued(shop: Shop) -> int:
    """Messages that no worker has taken yet."""
    with shop.app.connection_for_read() as connection:
        return int(connection.default_channel.client.llen("celery"))
