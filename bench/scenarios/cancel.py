"""Jobs are cancelled moments before and after their time, under a worker: none starts once its cancel said True."""

from __future__ import annotations

import time
from typing import Final

from bench.report import Goal, percentile
from bench.run import Run
from confect_celery import DateTime, Duration

__all__ = ["GOALS", "measure"]

_NAME: Final = "cancel"
_AFTER: Final = "started after their cancel had said True"
_OTHERS: Final = "not cancelled, and not started just once"
_RATE: Final = 200
_KINDS: Final = ("action", "mutation", "task")

GOALS: Final = [
    Goal(_NAME, _AFTER, 0, at_least=False),
    Goal(_NAME, _OTHERS, 0, at_least=False),
]


def measure(run: Run) -> None:
    """Every second job is cancelled, from 50 ms before its time to 150 ms after it."""
    count = run.size(600, 6000)
    for _ in range(run.rounds):
        with run.shop() as shop:
            shop.worker()
            scheduler, functions = shop.confect.scheduler, shop.module.functions
            start = time.time() + 3
            due = [start + n / _RATE for n in range(count)]
            jobs = [(_at(at), functions[_KINDS[n // 2 % 3]], {"n": n}) for n, at in enumerate(due)]
            ids = scheduler.run_many(jobs)
            said: dict[int, float] = {}  # the time at which the caller knew
            chosen = range(0, count, 2)
            for n in sorted(chosen, key=lambda n: due[n] + _offset(n)):
                time.sleep(max(0.0, due[n] + _offset(n) - time.time()))
                if scheduler.cancel(ids[n]):
                    said[n] = time.time()
            shop.wait_finished(60)
            starts: dict[int, list[float]] = {}
            for n, at in shop.starts.all():
                starts.setdefault(n, []).append(at)
            late = [n for n, known in said.items() if any(at > known for at in starts.get(n, ()))]
            wrong = [n for n in range(count) if n not in said and len(starts.get(n, ())) != 1]
            run.sample(_NAME, _AFTER, "jobs", len(late))
            run.sample(_NAME, _OTHERS, "jobs", len(wrong))
            lags = [at[0] - due[n] for n, at in starts.items()]
            run.sample(_NAME, "lag of those that ran, p50", "ms", percentile(lags, 0.5) * 1000)
            run.sample(_NAME, "cancelled in time", "%", 100 * len(said) / len(chosen))
            assert said and len(said) < len(chosen), "all cancels came at one side of the start: nothing was tried"
            assert not late, f"{_AFTER}: {late[:20]}"
            assert not wrong, f"{_OTHERS}: {wrong[:20]}"


def _at(seconds: float) -> DateTime:
    return DateTime.from_epoch_millis(0) + Duration.seconds(seconds)


def _offset(n: int) -> float:
    """Spread over the jobs, other than their kinds are."""
    return -0.05 + 0.2 * (n * 7 % 41) / 40
