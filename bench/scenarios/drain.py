"""How fast a backlog of due jobs is worked off: rows that became due while no worker ran, beside tasks in a queue."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Final

from bench.report import Goal
from bench.run import Run
from confect_celery import DateTime, Duration

__all__ = ["GOALS", "measure"]

_NAME: Final = "drain"


def _bare(broker: str) -> str:
    return f"celery delay(), {broker}"


def _line(way: str, kind: str, broker: str, database: str) -> str:
    return f"ours-{way}, {kind}, {broker}, {database}"


GOALS: Final = [
    *(
        Goal(_NAME, _line("single", kind, "redis", "postgresql"), 0.75, beside=_bare("redis"))
        for kind in ("mutation", "action", "task")
    ),
    *(
        Goal(_NAME, _line("batched", kind, "redis", "postgresql"), 3, beside=_bare("redis"))
        for kind in ("mutation", "action", "task")
    ),
    Goal(_NAME, _line("single", "action", "rabbitmq", "postgresql"), 0.45, beside=_bare("rabbitmq")),
]


def measure(run: Run) -> None:
    """Quick: Redis, PostgreSQL. Else both brokers, both databases."""
    count = run.size(1000, 5000)
    for broker in ("redis",) if run.quick else ("redis", "rabbitmq"):
        why = run.servers.why_not(broker)
        if why is not None:
            run.report.skip(f"drain, {broker}", why)
            continue
        lines: dict[str, Callable[[], None]] = {"native": partial(_native, run, broker, count)}
        for database in ("postgresql",) if run.quick else ("postgresql", "sqlite"):
            for way, batch in _ways(run):
                for kind in ("mutation", "action", "task"):
                    line = _line(way, kind, broker, database)
                    lines[line] = partial(_ours, run, way, batch, kind, broker, database, count)
        run.contend(lines)


def _ways(run: Run) -> list[tuple[str, int | None]]:
    """One message a job, and many; just one of them when the command line sets `confect_batch`."""
    given = run.conf.get("confect_batch")
    if given is not None:
        return [("single" if given == 1 else "batched", None)]
    return [("single", 1), ("batched", 50)]


def _native(run: Run, broker: str, count: int) -> None:
    with run.shop(broker, None) as shop:
        for n in range(count):
            shop.module.plain.delay(n)
        shop.worker()
        shop.starts.wait(count, 120)
        shop.starts.once_each(count)
        run.sample(_NAME, _bare(broker), "jobs/s", shop.starts.rate())


def _ours(run: Run, way: str, batch: int | None, kind: str, broker: str, database: str, count: int) -> None:
    conf = {} if batch is None else {"confect_batch": batch}
    with run.shop(broker, database, **conf) as shop:
        function = shop.module.functions[kind]
        # Beyond the horizon when they are scheduled, so that all are handed over by the worker's dispatcher.
        due = DateTime.now() + shop.confect.settings.horizon + Duration.seconds(2)
        args = ({"n": n} for n in range(count))
        shop.confect.scheduler.run_many([(due, function, each) for each in args])
        time.sleep(max(0.0, due.epoch_micros / 1e6 - time.time()))
        shop.worker()
        shop.starts.wait(count, 180)
        shop.wait_finished(60)
        shop.starts.once_each(count)
        run.sample(_NAME, _line(way, kind, broker, database), "jobs/s", shop.starts.rate())
