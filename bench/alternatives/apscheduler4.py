"""APScheduler 4 (alpha): SQLAlchemyDataStore on PostgreSQL through asyncpg, in this one process.

It cannot be installed beside APScheduler 3: `make bench` gives it an environment of its own, of what `apscheduler4.txt`
lists beside this file, and names its interpreter in `PEERS_PYTHON_APSCHEDULER4`.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

from bench.alternatives.interface import WARM_UP, Plan, Rates, Servers, directory_of_runs, in_an_hour, lacks, note_run

NAME = "APScheduler 4 alpha"


def missing() -> str | None:
    """Why it cannot run here."""
    needs = (lacks("apscheduler", above="4.0.0a1"), lacks("asyncpg"), lacks("greenlet"), lacks("sniffio"))
    reason = next(filter(None, needs), None)
    return reason and f"{reason}; name its interpreter in PEERS_PYTHON_APSCHEDULER4"


async def note(number: int) -> None:
    """The job."""
    note_run(number)


def measure(servers: Servers, jobs: int) -> Rates:
    """add_schedule, remove_schedule, and the drain of due schedules; it has no bulk call."""
    logging.getLogger("apscheduler").setLevel(logging.CRITICAL)
    return asyncio.run(_measure(servers.postgres_url.replace("+psycopg:", "+asyncpg:", 1), jobs))


def lags(servers: Servers, plan: Plan) -> Rates:
    """One call a job, into the scheduler that runs in this process."""
    logging.getLogger("apscheduler").setLevel(logging.CRITICAL)
    return asyncio.run(_lags(servers.postgres_url.replace("+psycopg:", "+asyncpg:", 1), plan))


@asynccontextmanager
async def _scheduler(url: str) -> AsyncIterator[tuple[Any, Callable[[int, datetime], Awaitable[str]]]]:
    from sqlalchemy.ext.asyncio import create_async_engine

    apscheduler: Any = __import__("apscheduler.datastores.sqlalchemy", fromlist=["*"])
    scheduler_class: Any = __import__("apscheduler").AsyncScheduler
    trigger: Any = __import__("apscheduler.triggers.date", fromlist=["*"]).DateTrigger
    async with scheduler_class(apscheduler.SQLAlchemyDataStore(create_async_engine(url))) as scheduler:
        await scheduler.configure_task("note", func=note, max_running_jobs=None)

        async def schedule(number: int, at: datetime) -> str:
            return str(await scheduler.add_schedule("note", trigger(at), id=str(uuid.uuid4()), args=(number,)))

        yield scheduler, schedule


async def _lags(url: str, plan: Plan) -> Rates:
    with directory_of_runs() as runs:
        async with _scheduler(url) as (scheduler, schedule):
            await scheduler.start_in_background()
            begun = time.perf_counter()
            for number in range(WARM_UP):
                await schedule(number, in_an_hour())
            due = plan.due(plan.lead(time.perf_counter() - begun))
            for number, at in enumerate(due):
                await schedule(number, at)
            plan.in_time(due)
            await asyncio.to_thread(runs.wait, plan.jobs)
            await scheduler.stop()
        return plan.judged(due, runs)


async def _measure(url: str, jobs: int) -> Rates:
    rates: Rates = {}
    with directory_of_runs() as runs:
        async with _scheduler(url) as (scheduler, schedule):
            due = in_an_hour()
            for number in range(WARM_UP):
                await schedule(number, due)
            start = time.perf_counter()
            ids = [await schedule(number, due) for number in range(jobs)]
            rates["schedule"] = jobs / (time.perf_counter() - start)
            start = time.perf_counter()
            for id in ids:
                await scheduler.remove_schedule(id)
            rates["cancel"] = jobs / (time.perf_counter() - start)
            now = datetime.now(UTC)
            for number in range(jobs):
                await schedule(number, now)
            await scheduler.start_in_background()
            rates["drain"] = await asyncio.to_thread(runs.drained, jobs)
            await scheduler.stop()
    return rates
