"""All due at one instant: when the last one starts."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Final

from bench.contenders import Shop
from bench.report import Goal
from bench.run import Run
from confect_celery import DateTime

__all__ = ["GOALS", "measure"]

_NAME: Final = "instant"
_NATIVE: Final = "celery eta, last start"
GOALS: Final = [
    Goal(_NAME, "ours-single, last start", 2.5, at_least=False, beside=_NATIVE),
    Goal(_NAME, "ours-batched, last start", 0.5, at_least=False, beside=_NATIVE),
]


def measure(run: Run) -> None:
    """Seconds from the due time to the last start."""
    count = run.size(1500, 5000)
    lines: dict[str, Callable[[], None]] = {"native": partial(_native, run, count)}
    for way, batch in (("single", 1), ("batched", 50)):
        lines[way] = partial(_ours, run, way, batch, count)
    run.contend(lines)


def _ours(run: Run, way: str, batch: int, count: int) -> None:
    with run.shop(confect_batch=batch) as shop:
        shop.worker()
        at = int((time.time() + 3) * 1000)
        action = shop.module.functions["action"]
        when = DateTime.from_epoch_millis(at)
        shop.confect.scheduler.run_many([(when, action, {"n": n}) for n in range(count)])
        _judge(run, shop, at / 1000, count, f"ours-{way}, last start")


def _native(run: Run, count: int) -> None:
    with run.shop(database=None) as shop:
        shop.worker()
        at = int((time.time() + 1 + count / 1000) * 1000)
        eta = DateTime.from_epoch_millis(at).to_utc()
        for n in range(count):
            shop.module.plain.apply_async((n,), eta=eta)
        _judge(run, shop, at / 1000, count, _NATIVE)


def _judge(run: Run, shop: Shop, due: float, count: int, line: str) -> None:
    shop.starts.wait(count, within=due - time.time() + 90)
    shop.starts.once_each(count)
    starts = [at - due for _, at in shop.starts.all()]
    assert min(starts) >= 0, f"{line}: started before its time"
    run.sample(_NAME, line, "s", max(starts))
