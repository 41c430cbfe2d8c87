"""celery-redbeat: one-off entries (a rule with count=1) in Redis; beat sends them, two prefork children run them."""

from __future__ import annotations

import sys
import time
from datetime import UTC, datetime, timedelta
from typing import Any

from bench.alternatives.interface import (
    WARM_UP,
    Plan,
    Rates,
    Servers,
    directory_of_runs,
    drain_by,
    in_an_hour,
    lacks,
    note_run,
    rate_of,
)

NAME = "celery-redbeat"
PREFIX, TASK = "bench-peers-redbeat", "bench.alternatives.redbeat.note"


def missing() -> str | None:
    """Why it cannot run here."""
    return lacks("celery-redbeat") or lacks("redis")


def _app(redis_url: str) -> Any:
    from celery import Celery

    app: Any = Celery("peers", broker=redis_url)
    app.conf.update(
        redbeat_redis_url=redis_url,
        redbeat_key_prefix=f"{PREFIX}:",
        task_default_queue=PREFIX,
        task_ignore_result=True,
        timezone="UTC",
        beat_max_loop_interval=1,  # left alone it looks once in five minutes
    )
    app.task(name=TASK)(note_run)
    return app


def measure(servers: Servers, jobs: int) -> Rates:
    """Save and delete of single entries, and the drain of due ones by beat and a worker; it has no bulk call."""
    from redbeat import RedBeatSchedulerEntry
    from redbeat.schedules import rrule

    app = _app(servers.redis_url)
    rates: Rates = {}
    _forget(servers.redis_url)

    def schedule(kind: str, number: int, at: datetime) -> Any:
        once = rrule("SECONDLY", dtstart=at, count=1)
        return RedBeatSchedulerEntry(f"{kind}-{number}", TASK, once, args=[number], app=app).save()

    try:
        with directory_of_runs() as runs:
            due = in_an_hour()
            for number in range(WARM_UP):
                schedule("warm", number, due)
            entries: list[Any] = []
            rates["schedule"] = rate_of(lambda number: entries.append(schedule("far", number, due)), jobs)
            rates["cancel"] = rate_of(lambda number: entries[number].delete(), jobs)
            # An entry that is saved after its time never runs: let all come due together, after the last is saved.
            soon = datetime.now(UTC) + timedelta(seconds=2 + 2 * jobs / rates["schedule"])
            for number in range(jobs):
                schedule("due", number, soon)
            time.sleep(max(0.0, (soon - datetime.now(UTC)).total_seconds()))
            command = ["-m", "bench.alternatives.redbeat", servers.redis_url]
            rates["drain"] = drain_by([[*command, "worker"], [*command, "beat"]], jobs, runs)
    finally:
        _forget(servers.redis_url)
    return rates


def lags(servers: Servers, plan: Plan) -> Rates:
    """One entry a job, saved while beat and the worker run."""
    from redbeat import RedBeatSchedulerEntry
    from redbeat.schedules import rrule

    app = _app(servers.redis_url)
    _forget(servers.redis_url)

    def schedule(due: list[datetime]) -> None:
        for number, at in enumerate(due):
            once = rrule("SECONDLY", dtstart=at, count=1)
            RedBeatSchedulerEntry(f"lag-{number}", TASK, once, args=[number], app=app).save()

    command = ["-m", "bench.alternatives.redbeat", servers.redis_url]
    try:
        return plan.lags([[*command, "worker"], [*command, "beat"]], schedule)
    finally:
        _forget(servers.redis_url)


def _forget(redis_url: str) -> None:
    import redis

    client: Any = redis.Redis.from_url(redis_url)
    keys = list(client.scan_iter(match=f"{PREFIX}*", count=1000))
    for begin in range(0, len(keys), 1000):
        client.delete(*keys[begin : begin + 1000])
    client.close()


def serve(redis_url: str, part: str) -> None:
    """The worker's or beat's process."""
    app = _app(redis_url)
    if part == "worker":
        app.worker_main(["worker", "-P", "prefork", "-c", "2", "-l", "WARNING"])
    else:
        app.start(["beat", "-S", "redbeat.RedBeatScheduler", "-l", "WARNING", "--pidfile="])


if __name__ == "__main__":
    serve(*sys.argv[1:])
