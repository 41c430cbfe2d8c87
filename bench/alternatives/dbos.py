"""DBOS: workflows in PostgreSQL, put into a queue with a delay; one executor process with its default polling."""

from __future__ import annotations

import sys
import threading
from datetime import UTC, datetime
from typing import Any

from bench.alternatives.interface import (
    WARM_UP,
    Plan,
    Rates,
    Servers,
    directory_of_runs,
    drain_by,
    lacks,
    note_run,
    rate_of,
    rate_of_bulk,
)

NAME = "DBOS"
QUEUE, WORKFLOW, VERSION = "peers", "note", "1"
HOUR = 3600.0


def missing() -> str | None:
    """Why it cannot run here."""
    return lacks("dbos")


def note(number: int) -> None:
    """The job."""
    note_run(number)


def measure(servers: Servers, jobs: int) -> Rates:
    """Single enqueue, all in one transaction of the caller, cancel by id, and the drain of what has no delay."""
    import sqlalchemy as sa
    from dbos import DBOS, DBOSClient

    DBOS.migrate(servers.libpq_url)
    client = DBOSClient(system_database_url=servers.libpq_url)
    engine = sa.create_engine(servers.postgres_url)
    options: Any = {"workflow_name": WORKFLOW, "queue_name": QUEUE, "app_version": VERSION}
    later: Any = {**options, "delay_seconds": HOUR}
    rates: Rates = {}

    def schedule_many(how: Any) -> None:
        with engine.begin() as connection:
            for number in range(jobs):
                client.enqueue_in_transaction(connection, how, number)

    try:
        with directory_of_runs() as runs:
            for number in range(WARM_UP):
                client.enqueue(later, number)
            ids: list[str] = []
            rates["schedule"] = rate_of(lambda number: ids.append(client.enqueue(later, number).workflow_id), jobs)
            rates["cancel"] = rate_of(lambda number: client.cancel_workflow(ids[number]), jobs)
            assert client.retrieve_workflow(ids[-1]).get_status().status == "CANCELLED"
            schedule_many(options)
            rates["drain"] = drain_by([["-m", "bench.alternatives.dbos", servers.libpq_url]], jobs, runs)
            rates["schedule_many"] = rate_of_bulk(lambda: schedule_many(later), jobs)
    finally:
        client.destroy()
        engine.dispose()
    return rates


def lags(servers: Servers, plan: Plan) -> Rates:
    """All in one transaction of the caller, each with its delay."""
    import sqlalchemy as sa
    from dbos import DBOS, DBOSClient

    DBOS.migrate(servers.libpq_url)
    client = DBOSClient(system_database_url=servers.libpq_url)
    engine = sa.create_engine(servers.postgres_url)
    options: Any = {"workflow_name": WORKFLOW, "queue_name": QUEUE, "app_version": VERSION}

    def schedule(due: list[datetime]) -> None:
        with engine.begin() as connection:
            for number, at in enumerate(due):
                delay = (at - datetime.now(UTC)).total_seconds()
                how: Any = {**options, "delay_seconds": delay}
                client.enqueue_in_transaction(connection, how, number)

    try:
        return plan.lags([["-m", "bench.alternatives.dbos", servers.libpq_url]], schedule)
    finally:
        client.destroy()
        engine.dispose()


def serve(url: str) -> None:
    """The executor's process."""
    from dbos import DBOS

    settings: Any = {
        "name": "peers",
        "system_database_url": url,
        "application_version": VERSION,
        "log_level": "WARNING",
    }
    DBOS(config=settings)
    DBOS.workflow(name=WORKFLOW)(note)
    DBOS.launch()
    DBOS.register_queue(QUEUE)
    threading.Event().wait()


if __name__ == "__main__":
    serve(sys.argv[1])
