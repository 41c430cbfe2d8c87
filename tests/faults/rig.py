"""A shop whose workers are broken, supervised as a service manager would, and its ledger."""

from __future__ import annotations

import importlib.util
import itertools
import json
import os
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any
from unittest import mock

from confect_celery import ScheduledFunction
from tests.faults import skew
from tests.faults.nursery import Raised
from tests.support.processes import Worker

_numbers = itertools.count(1)


class Dispatcher(Worker):
    """`celery confect dispatch`, kept up as a worker is."""

    def __init__(self, directory: Path, env: dict[str, str]) -> None:
        super().__init__("tests.faults.shop", directory, env)
        self.argv = [sys.executable, "-m", "celery", "-A", "tests.faults.shop", "confect", "dispatch"]


class Rig:
    """`shop` is the module of the app, in this process; workers run it in theirs."""

    def __init__(
        self,
        directory: Path,
        broker_url: str,
        database_url: str,
        config: dict[str, Any],
        *,
        crash: bool = False,
        shares: bool | None = None,
    ) -> None:
        """`crash`: workers may be told to die, and start quickly. `shares`: whether mutations of a batch share a
        transaction; by default where they are brief."""
        self.directory, self.crash = directory, crash
        self.ledger_file = directory / "ledger"
        self.env = {
            "TEST_BROKER_URL": broker_url,
            "TEST_DATABASE_URL": database_url,
            "TEST_CONFIG": json.dumps(config),
            "TEST_LEDGER": str(self.ledger_file),
            # The greatest of some: what comes between the two readings makes it smaller.
            "TEST_EPOCH": repr(max(time.time() - time.monotonic() for _ in range(20))),
        }
        self.shop: Any = self._import()
        if shares is not None:  # the workers, not this process
            self.env["TEST_SHARES"] = "always" if shares else "never"
        if crash:
            self.env["TEST_CRASH"] = str(directory)
        self.confect = self.shop.confect
        self.confect.store.migrate()
        self.shop.metadata.create_all(self.confect.store.database.engine)
        self.workers: list[Worker] = []

    def _import(self) -> Any:
        name = f"{__package__}.shop_{next(_numbers)}"
        spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name("shop.py"))
        assert spec is not None and spec.loader is not None
        module = sys.modules[name] = importlib.util.module_from_spec(spec)
        with mock.patch.dict(os.environ, self.env):
            spec.loader.exec_module(module)
        return module

    def worker(self, *options: str, ahead: float = 0, ready: bool = True) -> Worker:
        """One more worker, started, and `ready` unless that is not waited for; its host's clock is so many seconds
        `ahead`."""
        kind = Raised if self.crash else Worker
        worker = kind("tests.faults.shop", self.directory, self.env, *options)
        self.skew(worker, ahead)
        self.workers.append(worker)
        worker.start() if ready else worker.respawn()
        return worker

    def dispatcher(self, *, ahead: float = 0) -> Dispatcher:
        """A dispatcher that runs alone, started."""
        dispatcher = Dispatcher(self.directory, self.env)
        self.skew(dispatcher, ahead)
        self.workers.append(dispatcher)
        dispatcher.respawn()
        return dispatcher

    def skew(self, worker: Worker, ahead: float) -> None:
        """From its next start on the worker's host has a clock that is so many seconds `ahead`."""
        assert worker.env is not None
        worker.env = {name: value for name, value in worker.env.items() if name not in skew.environment(1)}
        worker.env |= skew.environment(ahead)

    def supervise(self) -> int:
        """Start again what ended, without waiting for it; how many."""
        ended = [worker for worker in self.workers if not worker.alive]
        for worker in ended:
            skew.forget(worker.pid)
            worker.respawn()
        return len(ended)

    def rows(self) -> dict[str, ScheduledFunction]:
        """All rows, by id."""
        with self.confect.reader() as db:
            return {row.id: row for row in db.table("_scheduled_functions").collect()}

    def effects(self) -> dict[str, int]:
        """How often each mutation's effect is in the database."""
        found: dict[str, int] = defaultdict(int)
        with self.confect.reader() as db:
            for effect in db.table("effects").collect():
                found[effect.job] += 1
        return found

    def ledger(self) -> dict[str, list[tuple[float, str]]]:
        """What ran, by job: the times and events in order."""
        found: dict[str, list[tuple[float, str]]] = defaultdict(list)
        if self.ledger_file.exists():
            for line in self.ledger_file.read_text().split("\n")[:-1]:  # the last may be half of one
                at, event, job = line.split(" ", 2)
                found[job].append((float(at), event))
        return found

    def close(self) -> None:
        """End everything at once."""
        for worker in self.workers:
            worker.end()
            skew.forget(worker.pid)
        self.confect.store.database.dispose()
        self.shop.app.close()
        sys.modules.pop(self.shop.__name__, None)
