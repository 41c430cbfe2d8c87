"""How late jobs start that are due evenly over some seconds, at several rates, with and without rows for later."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Final

from bench import peers
from bench.contenders import Shop
from bench.report import Goal, percentile
from bench.run import Run
from confect_celery import DateTime, Duration

__all__ = ["GOALS", "measure"]

_NAME: Final = "lag"
_OF_PEERS: Final = 3.0
"""For how many seconds jobs of peers become due."""
_LEAD: Final = 3.0
"""Beyond the horizon: the worker's dispatcher hands all of them over."""

GOALS: Final = [
    Goal(_NAME, "ours, 500/s, 1,000,000 pending, p50", 5, at_least=False),
    Goal(_NAME, "ours, 500/s, 1,000,000 pending, p99", 30, at_least=False),
    Goal(_NAME, "ours, 500/s, 1,000,000 pending, earliest", 0),
]


def measure(run: Run) -> None:
    """Lag is the start minus the due time; a job that starts before its time ends the run."""
    seconds = run.size(3, 10)
    for rate in (500,) if run.quick else (100, 500, 1000):
        lines: dict[str, Callable[[], None]] = {
            "tall": partial(_ours, run, rate, seconds, 1_000_000),
            "native": partial(_native, run, rate, seconds),
        }
        if not run.quick:
            lines["ours"] = partial(_ours, run, rate, seconds, 0)
        if rate < 1000 and not run.quick:  # most of them fall behind at 500
            for name in peers.chosen(run):
                lines[name] = partial(_peer, run, name, rate)
        run.contend(lines)


def _due(rate: int, seconds: int, lead: float) -> list[float]:
    start = time.time() + lead
    return [start + n / rate for n in range(rate * seconds)]


def _ours(run: Run, rate: int, seconds: int, pending: int) -> None:
    with run.shop(pending=pending) as shop:
        shop.worker()
        due = _due(rate, seconds, lead=_LEAD)
        when = [DateTime.from_epoch_millis(0) + Duration.seconds(at) for at in due]
        action = shop.module.functions["action"]
        shop.confect.scheduler.run_many([(at, action, {"n": n}) for n, at in enumerate(when)])
        _judge(run, shop, due, f"ours, {rate:,}/s, {pending:,} pending")


def _native(run: Run, rate: int, seconds: int) -> None:
    with run.shop(database=None) as shop:
        shop.worker()
        due = _due(rate, seconds, lead=1 + rate * seconds / 1000)  # all are published before the first is due
        for n, at in enumerate(due):
            shop.module.plain.apply_async((n,), eta=DateTime.from_epoch_millis(int(at * 1000)).to_utc())
        _judge(run, shop, [int(at * 1000) / 1000 for at in due], f"celery eta, {rate:,}/s")


def _peer(run: Run, name: str, rate: int) -> None:
    lags = peers.figures(run, name, int(rate * _OF_PEERS), _OF_PEERS) or {}
    for key in ("p50", "p99", "earliest"):
        if key in lags:
            run.sample(_NAME, f"{peers.title(name)}, {rate:,}/s, {key}", "ms", lags[key])


def _judge(run: Run, shop: Shop, due: list[float], line: str) -> None:
    shop.starts.wait(len(due), within=max(due) - time.time() + 60)
    shop.starts.once_each(len(due))
    lags = [(at - due[n]) * 1000 for n, at in shop.starts.all()]
    earliest = round(min(lags), 2)  # the times that are written down are rounded themselves
    run.sample(_NAME, f"{line}, earliest", "ms", earliest)
    assert earliest >= 0, f"{line}: started {-earliest:.2f} ms before its time"
    for share in (50, 99):
        run.sample(_NAME, f"{line}, p{share}", "ms", percentile(lags, share / 100))
