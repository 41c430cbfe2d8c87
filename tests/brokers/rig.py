"""A shop of a test's own on some broker: its database, its app in this process, and its workers."""

from __future__ import annotations

import importlib.util
import itertools
import json
import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import redis

from confect_celery import Duration, ScheduledFunction
from tests.support.processes import Worker
from tests.support.waiting import wait_for

NEAR = Duration.seconds(1)
SHOP = Path(__file__).with_name("shop.py")

_numbers = itertools.count(1)


def _import_shop(env: dict[str, str]) -> Any:
    """The shop reads its settings from the environment when it is imported, so each rig imports it anew."""
    name = f"{__package__}.shop_{next(_numbers)}"
    spec = importlib.util.spec_from_file_location(name, SHOP)
    assert spec is not None and spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    with mock.patch.dict(os.environ, env):
        spec.loader.exec_module(module)
    return module


class Rig:
    """`shop` is the module of the app, in this process; workers run it in theirs."""

    def __init__(self, directory: Path, broker_url: str, config: dict[str, Any]) -> None:
        if broker_url.startswith("filesystem:"):
            config = {**config, "broker_transport": "config.files:Transport"}
            config["broker_transport_options"] = _folders(directory)
        self.directory = directory
        self.env = {
            "TEST_BROKER_URL": broker_url,
            "TEST_DATABASE_URL": f"sqlite:///{directory / 'shop.db'}",
            "TEST_CONFIG": json.dumps(config),
        }
        self.shop: Any = _import_shop(self.env)
        self.app = self.shop.app
        self.confect = self.shop.confect
        self.scheduler = self.confect.scheduler
        self.workers: list[Worker] = []
        self.shop.metadata.create_all(self.confect.store.database.engine)

    def worker(self, *options: str) -> Worker:
        """One more worker, by default a prefork pool of two."""
        return self.start_workers(options)[0]

    def start_workers(self, *options: Sequence[str]) -> list[Worker]:
        """As many workers at once as options are given."""
        workers = [Worker("tests.brokers.shop", self.directory, self.env, *each) for each in options]
        self.workers += workers
        with ThreadPoolExecutor() as threads:
            list(threads.map(Worker.start, workers))
        return workers

    def schedule(self, function: Any, label: str, delay: Duration = NEAR) -> str:
        """Schedule a function that takes a label, by default within the horizon."""
        return str(self.scheduler.run_after(delay, function, {"label": label}))

    def cut_redis(self) -> None:
        """Cut all connections to this shop's part of Redis."""
        with redis.Redis.from_url(self.app.conf.broker_url) as server:
            ours = server.connection_pool.connection_kwargs["db"]
            for each in server.client_list():
                if int(each["db"]) == ours and each["cmd"] != "client|list":
                    server.client_kill_filter(_id=each["id"])

    def close(self) -> None:
        """End everything."""
        for worker in self.workers:
            worker.kill()  # how they end in order is not the matter here
        self.confect.store.database.dispose()
        self.app.close()
        del sys.modules[self.shop.__name__]

    # -- seeing

    def rows(self, ids: Sequence[str]) -> list[ScheduledFunction]:
        """The rows in this order."""
        with self.confect.reader() as db:
            return [db.table("_scheduled_functions").get(id) for id in ids]

    def row(self, id: str) -> ScheduledFunction:
        """One row."""
        return self.rows([id])[0]

    def ended(self, ids: Sequence[str], within: float = 20.0) -> list[ScheduledFunction]:
        """Wait until all these rows are terminal."""

        def rows() -> list[ScheduledFunction] | None:
            found = self.rows(ids)
            return found if all(row.state.kind.terminal for row in found) else None

        return wait_for(rows, within=within, what=f"the end of {len(ids)} rows")

    def succeeded(self, ids: Sequence[str], within: float = 20.0) -> list[ScheduledFunction]:
        """Wait until all these have ended, and well."""
        rows = self.ended(ids, within)
        assert {row.state.kind.value for row in rows} == {"success"}, [row.state.error for row in rows]
        return rows

    def marks(self) -> list[Any]:
        """All marks in the order they were left."""
        with self.confect.reader() as db:
            return list(db.table("marks").order("asc").collect())

    def mark(self, label: str, within: float = 20.0) -> Any:
        """Wait for the one mark `label`."""
        return wait_for(
            lambda: [mark for mark in self.marks() if mark.label == label], within=within, what=f"the mark {label!r}"
        )[0]

    def received(self, id: str) -> int:
        """How many messages of the row the workers have got."""
        return sum(worker.output().count(f"[{id}] received") for worker in self.workers)


def _folders(directory: Path) -> dict[str, Any]:
    messages, control = directory / "messages", directory / "control"
    for folder in (messages, control):
        folder.mkdir(exist_ok=True)
    folders = {"data_folder_in": str(messages), "data_folder_out": str(messages), "control_folder": str(control)}
    return {**folders, "polling_interval": 0.1}


@contextmanager
def rig(directory: Path, broker_url: str, config: dict[str, Any]) -> Iterator[Rig]:
    """A rig that is closed at the end; what its workers said is printed, for pytest to show when the test fails."""
    it = Rig(directory, broker_url, config)
    try:
        yield it
    finally:
        it.close()
        for worker in it.workers:
            print(f"----- {worker.log.name}\n{worker.output()[-6000:]}")
