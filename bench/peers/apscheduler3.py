"""APScheduler 3 with its SQLAlchemy job store on PostgreSQL, in this process: only scheduling is measured."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Any

from apscheduler.jobstores.sqlalchemy import SQLAlchemyJobStore
from apscheduler.schedulers.background import BackgroundScheduler

from bench.run import Run


def job(n: int) -> None:
    """The trivial job; the store keeps its name."""
    del n


class APScheduler3:
    """Paused: jobs are stored, none is run."""

    def __init__(self, url: str) -> None:
        self._scheduler: Any = BackgroundScheduler(jobstores={"default": SQLAlchemyJobStore(url=url)}, timezone="UTC")
        self._scheduler.start(paused=True)

    def one(self, n: int, due: dt.datetime) -> Any:
        return self._scheduler.add_job("bench.peers.apscheduler3:job", "date", run_date=due, args=(n,)).id

    def cancel(self, ids: Sequence[Any]) -> None:
        for id in ids:
            self._scheduler.remove_job(id)

    def close(self) -> None:
        self._scheduler.shutdown(wait=False)


def open_peer(run: Run) -> APScheduler3:
    return APScheduler3(run.servers.database("postgresql"))
