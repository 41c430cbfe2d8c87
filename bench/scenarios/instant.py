"""All due at one instant: when the last one starts."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Final

from bench import peers
from bench.contenders import Shop
from bench.report import Goal
from bench.run import Run
from confect_celery import DateTime

__all__ = ["GOALS", "measure"]

_NAME: Final = "instant"


def _native_line(broker: str) -> str:
    return f"celery eta, {broker}, last start"


def _line(way: str, broker: str) -> str:
    return f"ours-{way}, {broker}, last start"


GOALS: Final = [
    Goal(_NAME, _line("single", "redis"), 2.5, at_least=False, beside=_native_line("redis")),
    Goal(_NAME, _line("batched", "redis"), 0.5, at_least=False, beside=_native_line("redis")),
    Goal(_NAME, _line("batched, mutations", "redis"), 0.5, at_least=False, beside=_native_line("redis")),
]

_WAYS: Final = [("single", "action", 1), ("batched", "action", 50), ("batched, mutations", "mutation", 50)]
"""How ours go, what they are, and how many share a message."""


def measure(run: Run) -> None:
    """Seconds from the due time to the last start; not in a quick run, on RabbitMQ and of peers too."""
    count = run.count or run.size(1000, 5000)
    for broker in ("redis",) if run.quick else ("redis", "rabbitmq"):
        why = run.servers.why_not(broker)
        if why is not None:
            run.report.skip(f"instant, {broker}", why)
            continue
        lines: dict[str, Callable[[], None]] = {"native": partial(_native, run, broker, count)}
        for way, kind, batch in _WAYS:
            lines[way] = partial(_ours, run, way, kind, batch, broker, count)
        if broker == "redis" and not run.quick:
            for name in peers.chosen(run):
                lines[name] = partial(_peer, run, name, count)
        run.contend(lines)


def _ours(run: Run, way: str, kind: str, batch: int, broker: str, count: int) -> None:
    with run.shop(broker, confect_batch=batch) as shop:
        shop.worker()
        at = int((time.time() + 3) * 1000)
        function = shop.module.functions[kind]
        when = DateTime.from_epoch_millis(at)
        shop.confect.scheduler.run_many([(when, function, {"n": n}) for n in range(count)])
        _judge(run, shop, at / 1000, count, _line(way, broker))


def _native(run: Run, broker: str, count: int) -> None:
    # Its multiplier left alone, RabbitMQ's consumer is told of each held message, one at a time.
    with run.shop(broker, None) as shop:
        shop.worker()
        at = int((time.time() + 1 + count / 1000) * 1000)
        eta = DateTime.from_epoch_millis(at).to_utc()
        for n in range(count):
            shop.module.plain.apply_async((n,), eta=eta)
        _judge(run, shop, at / 1000, count, _native_line(broker))


def _peer(run: Run, name: str, count: int) -> None:
    lags = peers.figures(run, name, count, 0)
    if lags is not None:
        run.sample(_NAME, f"{peers.title(name)}, last start", "s", lags["last"] / 1000)


def _judge(run: Run, shop: Shop, due: float, count: int, line: str) -> None:
    shop.starts.wait(count, within=due - time.time() + 120)
    shop.starts.once_each(count)
    starts = [at - due for _, at in shop.starts.all()]
    assert min(starts) >= 0, f"{line}: started before its time"
    run.sample(_NAME, line, "s", max(starts))
