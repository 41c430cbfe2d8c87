"""DBOS's client on PostgreSQL: a workflow put into a queue with a delay."""

from __future__ import annotations

import datetime as dt
import importlib
from collections.abc import Sequence
from typing import Any

from sqlalchemy.engine import make_url

from bench.run import Run


class Dbos:
    """Its client; no executor runs. DBOS itself is launched once, since only it makes its tables."""

    def __init__(self, url: str) -> None:
        dbos: Any = importlib.import_module("dbos")
        config = {"name": "bench", "system_database_url": url, "run_admin_server": False, "log_level": "ERROR"}
        dbos.DBOS(config=config)
        dbos.DBOS.launch()
        dbos.DBOS.destroy()
        self._client: Any = dbos.DBOSClient(system_database_url=url)

    def one(self, n: int, due: dt.datetime) -> Any:
        delay = (due - dt.datetime.now(dt.UTC)).total_seconds()
        options = {"workflow_name": "plain", "queue_name": "q", "app_version": "1", "delay_seconds": delay}
        return self._client.enqueue(options, n).workflow_id

    def cancel(self, ids: Sequence[Any]) -> None:
        for id in ids:
            self._client.cancel_workflow(id)

    def close(self) -> None:
        self._client.destroy()


def open_peer(run: Run) -> Dbos:
    url = make_url(run.servers.database("postgresql")).set(drivername="postgresql")
    return Dbos(url.render_as_string(hide_password=False))
