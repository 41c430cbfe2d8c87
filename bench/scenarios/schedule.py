"""How many jobs a second can be scheduled and cancelled: ours, native Celery, peers, and what the servers can take."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any, Final

import sqlalchemy as sa

from bench.contenders import Shop
from bench.peers import PEERS, open_peer
from bench.report import Goal
from bench.run import Run, Stopwatch
from confect_celery import Duration

__all__ = ["GOALS", "measure"]

_NAME: Final = "schedule"
_ONE: Final = "ours, one call, PostgreSQL"
_NATIVE: Final = "celery apply_async(countdown), Redis"

GOALS: Final = [
    Goal(_NAME, _ONE, 1.3, beside=_NATIVE),
    Goal(_NAME, _ONE, 3, beside="procrastinate, one call"),
    Goal(_NAME, "ours, run_many, PostgreSQL", 50_000),
    Goal(_NAME, "ours, run_many, SQLite", 100_000),
    Goal(_NAME, "ours, cancel, PostgreSQL", 1.5, beside="procrastinate, cancel"),
]
_FAR: Final = Duration.hours(24)
_MANY: Final = 10_000


def measure(run: Run) -> None:
    """Nothing becomes due meanwhile, and no worker runs."""
    count = run.size(300, 2000)
    with ExitStack() as stack:
        lines: dict[str, Callable[[], None]] = {}
        for kind, title in (("postgresql", "PostgreSQL"), ("sqlite", "SQLite")):
            shop = stack.enter_context(run.shop(database=kind))
            lines[title] = partial(_ours, run, shop, title, count)
        native = stack.enter_context(run.shop(database=None))
        lines["native"] = partial(_native, run, native, count)
        for name in PEERS:
            peer = open_peer(name, run)
            if peer is not None:
                stack.callback(peer.close)
                lines[name] = partial(_peer, run, name, peer, count)
        run.report.skip("apscheduler4", "not written yet: it needs an environment of its own beside APScheduler 3")
        lines["limits"] = _limits(run, stack, count)
        run.contend(lines)


def _ours(run: Run, shop: Shop, title: str, count: int) -> None:
    scheduler, action = shop.confect.scheduler, shop.module.functions["action"]
    args = [shop.module.N(n=n) for n in range(count)]
    scheduler.run_after(_FAR, action, args[0])  # connections are open
    with Stopwatch() as watch:
        ids = [scheduler.run_after(_FAR, action, each) for each in args]
    run.sample(_NAME, f"ours, one call, {title}", "jobs/s", watch.rate(count))
    with Stopwatch() as watch:
        told = [scheduler.cancel(id) for id in ids]
    assert all(told), "a pending job was not cancelled"
    run.sample(_NAME, f"ours, cancel, {title}", "jobs/s", watch.rate(count))
    with shop.confect.store.database.engine.connect() as connection, connection.begin():
        joined = scheduler.using(connection)
        with Stopwatch() as watch:
            for each in args:
                joined.run_after(_FAR, action, each)
    run.sample(_NAME, f"ours, in an open transaction, {title}", "jobs/s", watch.rate(count))
    jobs = [(_FAR, action, shop.module.N(n=n)) for n in range(_MANY)]
    with Stopwatch() as watch:
        scheduler.run_many(jobs)
    run.sample(_NAME, f"ours, run_many, {title}", "jobs/s", watch.rate(_MANY))


def _native(run: Run, shop: Shop, count: int) -> None:
    plain = shop.module.plain
    plain.apply_async((0,), countdown=86400)
    with Stopwatch() as watch:
        for n in range(count):
            plain.apply_async((n,), countdown=86400)
    run.sample(_NAME, _NATIVE, "jobs/s", watch.rate(count))


def _peer(run: Run, name: str, peer: Any, count: int) -> None:
    due = dt.datetime.now(dt.UTC) + dt.timedelta(hours=24)
    peer.one(0, due)
    with Stopwatch() as watch:
        ids = [peer.one(n, due) for n in range(count)]
    run.sample(_NAME, f"{name}, one call", "jobs/s", watch.rate(count))
    with Stopwatch() as watch:
        peer.cancel(ids)
    run.sample(_NAME, f"{name}, cancel", "jobs/s", watch.rate(count))
    if hasattr(peer, "many"):
        with Stopwatch() as watch:
            peer.many(_MANY, due)
        run.sample(_NAME, f"{name}, many", "jobs/s", watch.rate(_MANY))


def _limits(run: Run, stack: ExitStack, count: int) -> Callable[[], None]:
    """What PostgreSQL takes from bare psycopg: rows like ours, an index like ours."""
    engine = sa.create_engine(run.servers.database("postgresql"), isolation_level="AUTOCOMMIT")
    stack.callback(engine.dispose)
    connection: Any = stack.enter_context(engine.connect()).connection.dbapi_connection
    connection.execute("CREATE TABLE j (id text PRIMARY KEY, name text, args jsonb, due timestamptz, state text)")
    connection.execute("CREATE INDEX ON j (due, id) WHERE state = 'pending'")
    due = dt.datetime.now(dt.UTC) + dt.timedelta(hours=24)
    state = {"n": 0}

    def row() -> tuple[Any, ...]:
        state["n"] += 1
        return f"019aaaaa-0000-7000-8000-{state['n']:012d}", "internal/bench/action", '{"n": 1}', due, "pending"

    def measure() -> None:
        with Stopwatch() as watch:
            for _ in range(count):
                connection.execute("INSERT INTO j VALUES (%s, %s, %s, %s, %s)", row())
        run.sample(_NAME, "limit: psycopg INSERT", "jobs/s", watch.rate(count))
        with Stopwatch() as watch, connection.cursor().copy("COPY j FROM STDIN") as copy:
            for _ in range(_MANY):
                copy.write_row(row())
        run.sample(_NAME, "limit: psycopg COPY", "jobs/s", watch.rate(_MANY))

    return measure
