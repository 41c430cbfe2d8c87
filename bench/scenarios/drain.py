"""How fast a backlog of due jobs is worked off: rows that became due while no worker ran, beside tasks in a queue."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

from bench.report import Goal
from bench.run import Run

__all__ = ["GOALS", "measure"]

_NAME: Final = "drain"
_KINDS: Final = ("mutation", "action", "task")


def _bare(broker: str) -> str:
    return f"celery delay(), {broker}"


def _line(way: str, kind: str, broker: str, database: str) -> str:
    return f"ours-{way}, {kind}, {broker}, {database}"


GOALS: Final = [
    *(Goal(_NAME, _line("single", kind, "redis", "postgresql"), 0.75, beside=_bare("redis")) for kind in _KINDS),
    *(Goal(_NAME, _line("batched", kind, "redis", "postgresql"), 3, beside=_bare("redis")) for kind in _KINDS),
    Goal(_NAME, _line("batched", "writing mutation", "redis", "postgresql"), 3, beside=_bare("redis")),
    *(Goal(_NAME, _line("single", kind, "rabbitmq", "postgresql"), 0.45, beside=_bare("rabbitmq")) for kind in _KINDS),
]


def measure(run: Run) -> None:
    """Quick leaves out what says little more: plain tasks (as actions), all but one line on RabbitMQ, and SQLite. What
    takes long there has 1,000 jobs, the quicker lines 3,000."""
    count, many = run.count or run.size(1000, 5000), run.count or run.size(3000, 5000)
    for broker in ("redis", "rabbitmq"):
        why = run.servers.why_not(broker)
        if why is not None:
            run.report.skip(f"drain, {broker}", why)
            continue
        lines: dict[str, Callable[[], None]] = {"native": partial(_native, run, broker, count)}
        for database in ("postgresql",) if run.quick else ("postgresql", "sqlite"):
            for way, conf in _ways(run):
                for kind in _kinds(run, broker, database, way):
                    line = _line(way, kind, broker, database)
                    jobs = many if way == "batched" else count
                    lines[line] = partial(_ours, run, line, conf, kind, broker, database, jobs)
        run.contend(lines)


def _ways(run: Run) -> list[tuple[str, dict[str, int]]]:
    """One message a job, of which a worker gathers what waits; the same, each alone in its child; many in a message.
    Just one of them when the command line sets `confect_batch`."""
    given = run.conf.get("confect_batch")
    if given is not None:
        return [("single" if given == 1 else "batched", {})]
    return [
        ("single", {"confect_batch": 1}),
        ("alone", {"confect_batch": 1, "confect_gathered": 1}),
        ("batched", {"confect_batch": 50}),
    ]


def _kinds(run: Run, broker: str, database: str, way: str) -> tuple[str, ...]:
    if way == "alone":
        return () if run.quick or database == "sqlite" else _KINDS
    if not run.quick:
        return (*_KINDS, "writing mutation")
    if broker == "rabbitmq":
        return ("mutation",) if way == "single" else ()
    return ("mutation", "action") if way == "single" else ("mutation", "action", "writing mutation")


def _native(run: Run, broker: str, count: int) -> None:
    with run.shop(broker, None) as shop:
        for n in range(count):
            shop.module.plain.delay(n)
        shop.worker()
        shop.starts.wait(count, 120)
        shop.starts.once_each(count)
        run.sample(_NAME, _bare(broker), "jobs/s", shop.starts.rate())


def _ours(run: Run, line: str, conf: dict[str, int], kind: str, broker: str, database: str, count: int) -> None:
    with run.shop(broker, database, **conf) as shop:
        shop.backlog(kind, count)
        shop.worker()
        shop.starts.wait(count, 180)
        shop.wait_finished(60)
        shop.starts.once_each(count)
        if kind == "writing mutation":
            assert shop.written() == count, f"{line}: {shop.written()} rows were written by {count} mutations"
        run.sample(_NAME, line, "jobs/s", shop.starts.rate())
