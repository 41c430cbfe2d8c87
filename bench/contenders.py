"""The shop in this process, and its workers: ours (with a database) or native Celery (without)."""

from __future__ import annotations

import importlib.util
import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

from bench.record import Starts
from confect_celery import DateTime, Duration
from tests.support.processes import ROOT, Process

__all__ = ["Shop", "commit"]

_numbers = itertools.count(1)


class Shop:
    """A fresh app on its own broker share and database. A context manager: what it started ends with it."""

    def __init__(
        self,
        directory: Path,
        broker: str,
        database: str | None,
        conf: dict[str, Any],
        after: Callable[[], None] = lambda: None,
    ) -> None:
        """`after()` is called when all of it has ended."""
        self._after = after
        self.number = next(_numbers)
        self.directory = directory
        self.starts = Starts(directory / f"starts{self.number}")
        self.env = {
            "BENCH_BROKER": broker,
            "BENCH_DATABASE": database or "",
            "BENCH_CONF": json.dumps(conf),
            "BENCH_STARTS": str(self.starts.path),
        }
        self._workers: list[Process] = []
        self._name = f"bench.shop_{self.number}"
        self.module = self._load()
        self.app = self.module.app
        self.confect = self.module.confect
        if database is not None:
            self.confect.store.migrate()
            self.module.tables.create_all(self.confect.store.database.engine)

    def _load(self) -> Any:
        spec = importlib.util.spec_from_file_location(self._name, Path(__file__).with_name("shop.py"))
        assert spec is not None and spec.loader is not None
        module = sys.modules[self._name] = importlib.util.module_from_spec(spec)
        with mock.patch.dict(os.environ, self.env):
            spec.loader.exec_module(module)
        return module

    def worker(self) -> Process:
        """A prefork worker of two children, ready."""
        number = next(_numbers)
        ready = self.directory / f"ready{number}"
        argv = [sys.executable, "-m", "celery", "-A", "bench.shop", "worker", "-n", f"b{number}@%h"]
        argv += ["--loglevel", "WARNING", "--pool", "prefork", "--concurrency", "2"]
        env = {**os.environ, **self.env, "BENCH_READY": str(ready), "PYTHONPATH": str(ROOT)}
        worker = Process(argv, self.directory / f"worker{number}.log", env)
        self._workers.append(worker)
        worker.start()
        until = time.monotonic() + 60
        while not ready.exists():
            if not worker.alive or time.monotonic() > until:
                raise RuntimeError(f"the worker did not become ready:\n{worker.output()[-3000:]}")
            time.sleep(0.02)
        return worker

    def unfinished(self) -> int:
        """How many rows are neither pending far off nor ended: those that are due or running."""
        with self.confect.reader() as db:
            table = db.table("_scheduled_functions")
            return int(table.filter(lambda q: q.in_(q.field("state.kind"), ["pending", "inProgress"])).count())

    def wait_finished(self, within: float) -> None:
        """Wait until no row is pending or in progress; raises TimeoutError."""
        until = time.monotonic() + within
        while left := self.unfinished():
            if time.monotonic() > until:
                raise TimeoutError(f"{left} rows had not ended after {within} s")
            time.sleep(0.1)

    def backlog(self, kind: str, count: int) -> None:
        """So many jobs of this kind whose time came while no worker ran: scheduled by our own call for tomorrow, and
        then the time is set back."""
        function, tomorrow = self.module.functions[kind], Duration.days(1)
        self.confect.scheduler.run_many([(tomorrow, function, {"n": n}) for n in range(count)])
        store, came = self.confect.store, DateTime.now()
        with store.database.transaction() as transaction:
            table = store.table
            due = table.update().values(scheduled_time=came, next_at=came)
            transaction.connection.execute(due.where(table.c.state == "pending"))

    def written(self) -> int:
        """How many rows the mutations that write have written."""
        with self.confect.reader() as db:
            return int(db.table(self.module.orders.name).count())

    def end_workers(self) -> None:
        """At once: what they were to do is done, and their broker's share is thrown away."""
        for worker in self._workers:
            worker.kill()
        self._workers.clear()

    def close(self) -> None:
        self.end_workers()
        if self.confect is not None:
            self.confect.store.database.dispose()
        self.app.close()
        del sys.modules[self._name]
        self._after()

    def __enter__(self) -> Shop:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def commit() -> str:
    """The commit that is measured, with `+` where the tree differs from it."""
    argv = ["git", "describe", "--always", "--dirty=+"]
    said = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
    return said.stdout.strip() or "unknown"
