"""A shop of a test's own: its database, its share of the broker, its app in this process, and its workers."""

from __future__ import annotations

import importlib.util
import itertools
import json
import os
import re
import sqlite3
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

from redis import Redis

from confect_celery import ScheduledFunction, ScheduledFunctionId
from confect_celery.runtime import CeleryTransport
from confect_celery.store import Delivery
from tests.support.processes import Worker
from tests.support.waiting import wait_for

SHOP = Path(__file__).with_name("shop.py")

_numbers = itertools.count(1)


def _import_shop(env: dict[str, str]) -> ModuleType:
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
        self.redis = Redis.from_url(broker_url)
        self.workers: list[Worker] = []
        self.shop.metadata.create_all(self.confect.store.database.engine)

    def worker(self, *options: str, start: bool = True, **env: str) -> Worker:
        """One more worker, by default a prefork pool of two."""
        worker = Worker("tests.integration.shop", self.directory, {**self.env, **env}, *options)
        self.workers.append(worker)
        if start:
            worker.start()
        return worker

    def close(self) -> None:
        """End everything, at once."""
        for worker in self.workers:
            worker.end()
        self.confect.store.database.dispose()
        self.app.close()
        self.redis.close()
        del sys.modules[self.shop.__name__]

    # -- doing

    def slow(self, label: str, seconds: float) -> Any:
        """The args of the slow functions."""
        return self.shop.Slow(label=label, seconds=seconds)

    def delivery(self, id: ScheduledFunctionId) -> Delivery:
        """What a dispatcher would publish for the row as it is now."""
        row = self.row(id)
        return Delivery(id, row.name, row.kind, row.args, row.scheduled_time, row.attempt, row.options, row.parent_id)

    def publish(self, delivery: Delivery, times: int = 1) -> None:
        """Send the same message `times` over."""
        transport = CeleryTransport(self.app, self.confect.settings)
        for _ in range(times):
            transport.publish(delivery)

    # -- seeing

    def row(self, id: str) -> ScheduledFunction:
        """The row, read without a lock."""
        return self.rows([id])[0]

    def rows(self, ids: Iterable[str]) -> list[ScheduledFunction]:
        """The rows in this order."""
        with self.confect.reader() as db:
            return [db.table("_scheduled_functions").get(id) for id in ids]

    def called(self, label: str) -> list[ScheduledFunction]:
        """The rows that were scheduled with this label, oldest first."""
        with self.confect.reader() as db:
            table = db.table("_scheduled_functions")
            return list(table.filter(lambda q: q.eq(q.field("args.label"), label)).collect())

    def marks(self, label: str) -> list[float]:
        """When the mark `label` was left, oldest first."""
        with self.confect.reader() as db:
            table = db.table("marks")
            return [mark.at for mark in table.filter(lambda q: q.eq(q.field("label"), label)).collect()]

    def marked(self, label: str, within: float = 20.0) -> float:
        """Wait for the mark `label`."""
        return wait_for(lambda: self.marks(label), within=within, what=f"the mark {label!r}")[0]

    def ended(
        self, ids: Sequence[str], within: float = 20.0, meanwhile: Callable[[], object] = lambda: None
    ) -> list[ScheduledFunction]:
        """Wait until all these rows are terminal."""

        def rows() -> list[ScheduledFunction] | None:
            meanwhile()
            found = self.rows(ids)
            return found if all(row.state.kind.terminal for row in found) else None

        return wait_for(rows, within=within, what=f"the end of {len(ids)} rows")

    def end(self, id: str, within: float = 20.0) -> ScheduledFunction:
        """Wait until this row is terminal."""
        return self.ended([id], within)[0]

    def becomes(self, id: str, kind: str, within: float = 20.0) -> None:
        """Wait until the row is in this state."""
        wait_for(lambda: self.row(id).state.kind == kind, within=within, what=f"{id} to be {kind}")

    def locked(self) -> bool:
        """Whether somebody is writing to the database."""
        with closing(sqlite3.connect(self.directory / "shop.db", timeout=0)) as connection:
            try:
                connection.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError:
                return True
            connection.rollback()
            return False

    def dropped(self, id: str) -> int:
        """How many messages of the row the workers have dropped."""
        said = re.compile(rf"Dropped a message of \S*\[{re.escape(id)}\]")
        return sum(len(said.findall(worker.output())) for worker in self.workers)

    def received(self, id: str) -> int:
        """How many messages of the row the workers have got."""
        return sum(worker.output().count(f"[{id}] received") for worker in self.workers)


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
