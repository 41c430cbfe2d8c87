"""How many jobs a second can be scheduled and cancelled: ours, native Celery, peers, and what the servers can take."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any, Final

import sqlalchemy as sa

from bench import peers
from bench.contenders import Shop
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
_OF_PEERS: Final = {"schedule": "one call", "cancel": "cancel", "drain": "drain", "schedule_many": "many"}


def measure(run: Run) -> None:
    """Nothing becomes due meanwhile, and no worker runs."""
    count = run.count or run.size(500, 2000)
    with ExitStack() as stack:
        lines: dict[str, Callable[[], None]] = {}
        for kind, title in (("postgresql", "PostgreSQL"), ("sqlite", "SQLite")):
            shop = stack.enter_context(run.shop(database=kind))
            lines[title] = partial(_ours, run, shop, title, count)
        native = stack.enter_context(run.shop(database=None))
        lines["native"] = partial(_native, run, native, count)
        for name in peers.chosen(run):
            lines[name] = partial(_peer, run, name, count)
        lines["publish"] = partial(_publish, run, native, count)
        why = run.servers.why_not("rabbitmq")
        if why is None:
            rabbit = stack.enter_context(run.shop("rabbitmq", None))
            lines["RabbitMQ"] = partial(_rabbit, run, rabbit, count)
        else:
            run.report.skip("publish, rabbitmq", why)
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
    for what, jobs in _many(shop).items():
        with Stopwatch() as watch:
            scheduler.run_many(jobs)
        run.sample(_NAME, f"ours, run_many{what}, {title}", "jobs/s", watch.rate(_MANY))


def _many(shop: Shop) -> dict[str, list[tuple[Duration, Any, Any]]]:
    """Jobs of one function and time; with times of their own, as reminders; and as who has Celery's tasks has them."""
    action, plain = shop.module.functions["action"], shop.module.plain
    args = [shop.module.N(n=n) for n in range(_MANY)]
    return {
        "": [(_FAR, action, each) for each in args],
        ", each at a time of its own": [(_FAR + Duration.millis(n), action, each) for n, each in enumerate(args)],
        ", signatures of a task": [(_FAR, plain.s(n), None) for n in range(_MANY)],
    }


def _native(run: Run, shop: Shop, count: int) -> None:
    plain = shop.module.plain
    plain.apply_async((0,), countdown=86400)
    with Stopwatch() as watch:
        for n in range(count):
            plain.apply_async((n,), countdown=86400)
    run.sample(_NAME, _NATIVE, "jobs/s", watch.rate(count))


def _peer(run: Run, name: str, count: int) -> None:
    for key, rate in (peers.figures(run, name, count) or {}).items():
        run.sample(_NAME, f"{name}, {_OF_PEERS[key]}", "jobs/s", rate)


def _rabbit(run: Run, shop: Shop, count: int) -> None:
    """What kombu and RabbitMQ take, with each message confirmed and without."""
    for confirmed in (False, True):
        line = "limit: kombu publish, RabbitMQ" + (", confirmed" if confirmed else "")
        options = {"confirm_publish": confirmed}
        with shop.app.connection_for_write(transport_options=options) as connection:
            queue = connection.SimpleQueue("bench-limit")  # durable, its messages persistent
            queue.put({"n": 0})
            with Stopwatch() as watch:
                for n in range(count):
                    queue.put({"n": n})
            run.sample(_NAME, line, "jobs/s", watch.rate(count))
            queue.close()


def _publish(run: Run, native: Shop, count: int) -> None:
    """What kombu and Redis take of messages that somebody has made already."""
    with native.app.connection_for_write() as connection:
        producer = connection.Producer()
        client = connection.default_channel.client
        with Stopwatch() as watch:
            for n in range(count):
                producer.publish({"n": n}, routing_key="bench-limit", serializer="json")
        run.sample(_NAME, "limit: kombu publish, Redis", "jobs/s", watch.rate(count))
        with Stopwatch() as watch:
            for n in range(count):
                client.lpush("bench-limit-raw", b'{"n": %d}' % n)
        run.sample(_NAME, "limit: LPUSH, Redis", "jobs/s", watch.rate(count))


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
