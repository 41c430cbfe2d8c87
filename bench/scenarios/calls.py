"""Jobs for a second ahead, a call each, while a worker runs: how long a call takes, and how late they start."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Final

from bench.contenders import Shop
from bench.report import Goal, percentile
from bench.run import Run
from confect_celery import Duration

__all__ = ["GOALS", "measure"]

_NAME: Final = "calls"
_AHEAD_SECONDS: Final = 1.0
"""The shortest delay that there is by default."""

GOALS: Final[list[Goal]] = []


def measure(run: Run) -> None:
    """One process calls, so many times a second as it is asked to, or as it can; in a quick run not on RabbitMQ."""
    seconds = run.size(3, 6)
    for broker in ("redis",) if run.quick else ("redis", "rabbitmq"):
        why = run.servers.why_not(broker)
        if why is not None:
            run.report.skip(f"calls, {broker}", why)
            continue
        for rate in (500,) if run.quick else (100, 500, 1000):
            run.contend(
                {
                    "ours": partial(_ours, run, broker, rate, seconds),
                    "native": partial(_native, run, broker, rate, seconds),
                }
            )


def _ours(run: Run, broker: str, rate: int, seconds: int) -> None:
    with run.shop(broker) as shop:
        schedule, action, args = shop.confect.scheduler.run_after, shop.module.functions["action"], shop.module.N
        ahead = Duration.seconds(_AHEAD_SECONDS)
        _judge(run, shop, f"ours, {broker}, {rate:,}/s", rate, seconds, lambda n: schedule(ahead, action, args(n=n)))


def _native(run: Run, broker: str, rate: int, seconds: int) -> None:
    with run.shop(broker, None) as shop:
        line, publish = f"celery countdown, {broker}, {rate:,}/s", shop.module.plain.apply_async
        _judge(run, shop, line, rate, seconds, lambda n: publish((n,), countdown=_AHEAD_SECONDS))


def _judge(run: Run, shop: Shop, line: str, rate: int, seconds: int, call: Callable[[int], object]) -> None:
    shop.worker()
    count, took, due = rate * seconds, [], []
    began = time.time()
    for n in range(count):
        time.sleep(max(began + n / rate - time.time(), 0))
        at = time.time()
        call(n)
        took.append((time.time() - at) * 1_000_000)
        due.append(at + _AHEAD_SECONDS)
    pace = count / (time.time() - began)
    shop.starts.wait(count, within=60)
    shop.starts.once_each(count)
    lags = [(at - due[n]) * 1000 for n, at in shop.starts.all()]
    assert min(lags) >= 0, f"{line}: started {-min(lags):.2f} ms before its time"
    run.sample(_NAME, f"{line}, calls", "1/s", pace)
    run.sample(_NAME, f"{line}, a call, p50", "us", percentile(took, 0.5))
    for share in (50, 99):
        run.sample(_NAME, f"{line}, lag, p{share}", "ms", percentile(lags, share / 100))
