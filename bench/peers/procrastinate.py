"""Procrastinate on PostgreSQL: the same job through its public `defer`."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Any

import procrastinate
from sqlalchemy.engine import make_url

from bench.run import Run


class Procrastinate:
    """Its synchronous client."""

    def __init__(self, dsn: str) -> None:
        self._app = procrastinate.App(connector=procrastinate.SyncPsycopgConnector(conninfo=dsn))
        self._app.open()
        self._app.schema_manager.apply_schema()

        @self._app.task(name="bench.plain", queue="q")  # type: ignore[untyped-decorator,unused-ignore]
        def plain(n: int) -> None:
            del n

        self._task: Any = plain

    def one(self, n: int, due: dt.datetime) -> Any:
        return self._task.configure(schedule_at=due).defer(n=n)

    def many(self, count: int, due: dt.datetime) -> None:
        self._task.configure(schedule_at=due).batch_defer(*[{"n": n} for n in range(count)])

    def cancel(self, ids: Sequence[Any]) -> None:
        for id in ids:
            self._app.job_manager.cancel_job_by_id(id)

    def close(self) -> None:
        self._app.close()


def open_peer(run: Run) -> Procrastinate:
    url = make_url(run.servers.database("postgresql")).set(drivername="postgresql")
    return Procrastinate(url.render_as_string(hide_password=False))
