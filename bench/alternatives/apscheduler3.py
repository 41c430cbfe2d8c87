"""APScheduler 3: SQLAlchemyJobStore on PostgreSQL; scheduler and a pool of ten threads in this one process."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import Any

from bench.alternatives.interface import (
    WARM_UP,
    Plan,
    Rates,
    Servers,
    directory_of_runs,
    in_an_hour,
    lacks,
    note_run,
    rate_of,
)

NAME = "APScheduler 3"


def missing() -> str | None:
    """Why it cannot run here."""
    return lacks("apscheduler", below="4")


def _scheduler(servers: Servers) -> Any:
    from apscheduler.jobstores.sqlalchemy import SQLAlchemyJobStore
    from apscheduler.schedulers.background import BackgroundScheduler

    logging.getLogger("apscheduler").setLevel(logging.CRITICAL)  # it warns of each job that is late, here all
    return BackgroundScheduler(
        jobstores={"default": SQLAlchemyJobStore(url=servers.postgres_url)},
        job_defaults={"misfire_grace_time": None},  # left alone, it drops what is more than a second late
        timezone="UTC",
    )


def lags(servers: Servers, plan: Plan) -> Rates:
    """One call a job, into the scheduler that runs in this process."""
    scheduler = _scheduler(servers)

    def schedule(due: list[datetime]) -> None:
        for number, at in enumerate(due):
            scheduler.add_job(note_run, "date", run_date=at, args=(number,))

    scheduler.start()
    try:
        return plan.lags([], schedule)
    finally:
        scheduler.shutdown(wait=False)


def measure(servers: Servers, jobs: int) -> Rates:
    """add_job, remove_job, and the drain of due jobs; it has no bulk call."""
    scheduler = _scheduler(servers)
    rates: Rates = {}
    with directory_of_runs() as runs:
        scheduler.start(paused=True)
        try:
            due = in_an_hour()

            def schedule(number: int, at: datetime) -> str:
                return str(scheduler.add_job(note_run, "date", run_date=at, args=(number,)).id)

            for number in range(WARM_UP):
                schedule(number, due)
            ids: list[str] = []
            rates["schedule"] = rate_of(lambda number: ids.append(schedule(number, due)), jobs)
            rates["cancel"] = rate_of(lambda number: scheduler.remove_job(ids[number]), jobs)
            now = datetime.now(UTC)
            for number in range(jobs):
                schedule(number, now)
            scheduler.resume()
            rates["drain"] = runs.drained(jobs)
        finally:
            scheduler.shutdown(wait=False)
    return rates
