"""Jobs are cancelled moments before and after their time, under a worker: none starts once its cancel said True."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable
from typing import Final

import sqlalchemy as sa

from bench.contenders import Shop
from bench.report import Goal, percentile
from bench.run import Run
from confect_celery import DateTime, Duration

__all__ = ["GOALS", "measure"]

_NAME: Final = "cancel"
_AFTER: Final = "started though cancelled before"
_OTHERS: Final = "not cancelled, and not run just once"
_RATE: Final = 100
_KINDS: Final = ("action", "writing mutation", "task")

GOALS: Final = [
    Goal(_NAME, _AFTER, 0, at_least=False),
    Goal(_NAME, _OTHERS, 0, at_least=False),
]


def measure(run: Run) -> None:
    """Every second job is cancelled, from 50 ms before its time to 350 ms after it.

    An action or a task that has been claimed has begun: a cancel lets it finish, and its row tells. What was cancelled
    before must not start, ever. A mutation that has begun is rolled back: what it wrote must not be there.
    """
    count = run.size(300, 3000)
    for _ in range(run.rounds):
        with run.shop() as shop:
            _measure(run, shop, count)


def _measure(run: Run, shop: Shop, count: int) -> None:
    shop.worker()
    start = time.time() + 3
    due = [start + n / _RATE for n in range(count)]
    jobs = [(_at(at), shop.module.functions[_kind(n)], {"n": n}) for n, at in enumerate(due)]
    ids = shop.confect.scheduler.run_many(jobs)
    cancelled = set()
    chosen = range(0, count, 2)
    for n in sorted(chosen, key=lambda n: due[n] + _offset(n)):
        time.sleep(max(0.0, due[n] + _offset(n) - time.time()))
        if shop.confect.scheduler.cancel(ids[n]):
            cancelled.add(n)
    shop.wait_finished(60)
    time.sleep(0.5)  # an action that had begun is at its end

    starts, written, unbegun = Counter(n for n, _ in shop.starts.all()), Counter(_written(shop)), _unbegun(shop)
    late = [n for n in cancelled if (written[n] if _kind(n) == "writing mutation" else starts[n] and ids[n] in unbegun)]
    wrong = [
        n for n in set(range(count)) - cancelled if (written if _kind(n) == "writing mutation" else starts)[n] != 1
    ]
    run.sample(_NAME, _AFTER, "jobs", len(late))
    run.sample(_NAME, _OTHERS, "jobs", len(wrong))
    run.sample(_NAME, "cancelled", "%", 100 * len(cancelled) / len(chosen))
    run.sample(_NAME, "cancelled while they ran", "%", 100 * len(cancelled & set(starts)) / len(chosen))
    lags = [(at - due[n]) * 1000 for n, at in shop.starts.all()]
    run.sample(_NAME, "lag of those that ran, p50", "ms", percentile(lags, 0.5))
    assert not late, f"{_AFTER}: {late[:20]}"
    assert not wrong, f"{_OTHERS}: {wrong[:20]}"
    assert cancelled, "no cancel came in time: nothing was tried"


def _unbegun(shop: Shop) -> set[str]:
    """The ids of the rows that were cancelled before they were claimed: `deliveries` below 0 are of rows that a worker
    holds, in doubt or not, and has not begun."""
    c = shop.confect.store.table.c
    chosen = sa.select(c.id).where(c.state == "canceled", sa.or_(c.attempt == 0, c.deliveries < 0))
    with shop.confect.store.database.autocommit() as connection:
        return set(connection.scalars(chosen))


def _written(shop: Shop) -> Iterable[int]:
    with shop.confect.store.database.autocommit() as connection:
        return list(connection.scalars(sa.select(shop.module.orders.c.number)))


def _kind(n: int) -> str:
    return _KINDS[n // 2 % 3]


def _at(seconds: float) -> DateTime:
    return DateTime.from_epoch_millis(0) + Duration.seconds(seconds)


def _offset(n: int) -> float:
    """Spread over the jobs, other than their kinds are."""
    return -0.05 + 0.4 * (n * 7 % 41) / 40
