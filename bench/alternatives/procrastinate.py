"""Procrastinate: rows in PostgreSQL, woken by LISTEN/NOTIFY; one worker process that runs ten async jobs at once."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
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
    rate_of_bulk,
)

NAME = "Procrastinate"
QUEUE, TASK = "peers", "note"
POLL_SECONDS = 0.2


def missing() -> str | None:
    """Why it cannot run here."""
    return lacks("procrastinate")


async def note(number: int) -> None:
    """The job."""
    note_run(number)


def _app(connector: Any) -> tuple[Any, Any]:
    from procrastinate import App

    app = App(connector=connector)
    return app, app.task(name=TASK, queue=QUEUE)(note)


def measure(servers: Servers, jobs: int) -> Rates:
    """Single and bulk defer, cancel by id, and the drain of due jobs."""
    from procrastinate import SyncPsycopgConnector

    app, task = _app(SyncPsycopgConnector(conninfo=servers.libpq_url))
    rates: Rates = {}
    with app.open(), directory_of_runs() as runs:
        app.schema_manager.apply_schema()
        due = in_an_hour()

        def schedule(number: int) -> int:
            return int(task.configure(schedule_at=due).defer(number=number))

        for number in range(WARM_UP):
            schedule(number)
        ids: list[int] = []
        rates["schedule"] = rate_of(lambda number: ids.append(schedule(number)), jobs)
        many = [{"number": number} for number in range(jobs)]
        cancelled: list[bool] = []
        rates["cancel"] = rate_of(lambda number: cancelled.append(app.job_manager.cancel_job_by_id(ids[number])), jobs)
        assert all(cancelled), "a job that is not due was not cancelled"
        task.configure(schedule_at=datetime.now(UTC)).batch_defer(*many)
        rates["drain"] = drain_by([["-m", "bench.alternatives.procrastinate", servers.libpq_url]], jobs, runs)
        rates["schedule_many"] = rate_of_bulk(lambda: task.configure(schedule_at=due).batch_defer(*many), jobs)
    return rates


def lags(servers: Servers, plan: Plan) -> Rates:
    """One call a job; its worker looks for jobs whose time has come five times a second (left alone: once in five)."""
    from procrastinate import SyncPsycopgConnector

    app, task = _app(SyncPsycopgConnector(conninfo=servers.libpq_url))
    with app.open():
        app.schema_manager.apply_schema()

        def schedule(due: list[datetime]) -> None:
            for number, at in enumerate(due):
                task.configure(schedule_at=at).defer(number=number)

        return plan.lags([["-m", "bench.alternatives.procrastinate", servers.libpq_url]], schedule)


def serve(url: str) -> None:
    """The worker's process."""
    from procrastinate import PsycopgConnector

    app, _ = _app(PsycopgConnector(conninfo=url))
    app.run_worker(queues=[QUEUE], concurrency=10, fetch_job_polling_interval=POLL_SECONDS)


if __name__ == "__main__":
    serve(sys.argv[1])
