"""A shop on some broker, its workers, and a real Flower beside them, asked through its HTTP API."""

from __future__ import annotations

import importlib.util
import itertools
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import httpx

from confect_celery import ScheduledFunction
from tests.support.processes import ROOT, Process, Worker, free_port
from tests.support.waiting import wait_for

SHOP = Path(__file__).with_name("shop.py")

_numbers = itertools.count(1)


class Flower(Process):
    """Flower as shops run it: it knows the broker, and not the app."""

    def __init__(self, directory: Path, broker_url: str) -> None:
        self.port = free_port()
        argv = [sys.executable, "-m", "celery", f"--broker={broker_url}", "flower", "--address=127.0.0.1"]
        env = {**os.environ, "FLOWER_UNAUTHENTICATED_API": "true", "PYTHONPATH": str(ROOT)}
        log = directory / f"flower-{self.port}.log"
        super().__init__([*argv, f"--port={self.port}"], log, env, directory)
        self._http = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=30)

    def start(self) -> None:
        super().start()
        wait_for(self._answers, within=30, what="Flower")

    def _answers(self) -> bool:
        assert self.alive, self.output()[-4000:]
        try:
            return self._http.get("/healthcheck").is_success
        except httpx.TransportError:
            return False

    def end(self) -> None:
        self._http.close()
        super().end()

    def sees(self, worker: str) -> bool:
        """Whether it hears this worker's events."""
        return worker in self.workers()

    def workers(self) -> list[str]:
        """The workers that it lists."""
        found: list[dict[str, Any]] = self._http.get("/workers", params={"json": "true"}).json()["data"]
        return [str(worker["hostname"]) for worker in found]

    def tasks(self) -> dict[str, dict[str, Any]]:
        """All tasks that it knows, by id."""
        found: dict[str, dict[str, Any]] = self._http.get("/api/tasks").json()
        return found

    def task(self, id: str, state: str, within: float = 20.0, **fields: Any) -> dict[str, Any]:
        """Wait until the task is in this state, with these fields."""
        wanted = {"state": state, **fields}

        def found() -> dict[str, Any] | None:
            task = self.tasks().get(id) or {}
            return task if all(task.get(name) == value for name, value in wanted.items()) else None

        try:
            return wait_for(found, within=within, what=f"Flower to show {wanted}") or {}
        except AssertionError as error:
            raise AssertionError(f"{error}; it shows {self.tasks().get(id)}") from None

    def revoke(self, id: str, **parameters: str) -> None:
        """What the buttons Revoke and Terminate do."""
        self._http.post(f"/api/task/revoke/{id}", params=parameters).raise_for_status()


class Rig:
    """`shop` is the module of the app, in this process; workers run it in theirs."""

    def __init__(self, directory: Path, broker_url: str, config: dict[str, Any]) -> None:
        self.directory = directory
        self.broker_url = broker_url
        self.env = {
            "TEST_BROKER_URL": broker_url,
            "TEST_DATABASE_URL": f"sqlite:///{directory / 'shop.db'}",
            "TEST_CONFIG": json.dumps(config),
        }
        self.processes: list[Process] = []
        name = f"{__package__}.shop_{next(_numbers)}"  # it reads the environment when it is imported
        spec = importlib.util.spec_from_file_location(name, SHOP)
        assert spec is not None and spec.loader is not None
        self.shop: Any = importlib.util.module_from_spec(spec)
        sys.modules[name] = self.shop
        with mock.patch.dict(os.environ, self.env):
            spec.loader.exec_module(self.shop)
        self.app, self.confect = self.shop.app, self.shop.confect
        self.scheduler = self.confect.scheduler

    def worker(self) -> Worker:
        """One more worker, its pool two processes."""
        worker = Worker("tests.flower.shop", self.directory, self.env)
        self.processes.append(worker)
        worker.start()
        return worker

    def flower(self) -> Flower:
        """One more Flower, which hears all workers that run now."""
        flower = Flower(self.directory, self.broker_url)
        self.processes.append(flower)
        flower.start()
        count = sum(isinstance(process, Worker) and process.alive for process in self.processes)
        wait_for(lambda: len(flower.workers()) >= count, within=30, what=f"Flower to hear {count} workers")
        return flower

    def row(self, id: str) -> ScheduledFunction:
        """The row."""
        found: ScheduledFunction | None = self.scheduler.get(id)
        assert found is not None
        return found

    def becomes(self, id: str, kind: str, within: float = 20.0) -> ScheduledFunction:
        """Wait until the row is in this state."""
        wait_for(lambda: self.row(id).state.kind == kind, within=within, what=f"{id} to be {kind}")
        return self.row(id)

    def close(self) -> None:
        """End everything."""
        for process in self.processes:
            process.end()
        self.confect.store.database.dispose()
        self.app.close()
        del sys.modules[self.shop.__name__]


@contextmanager
def rig(directory: Path, broker_url: str, config: dict[str, Any]) -> Iterator[Rig]:
    """A rig that is closed at the end; what its processes said is printed, for pytest to show when the test fails."""
    it = Rig(directory, broker_url, config)
    try:
        yield it
    finally:
        it.close()
        for process in it.processes:
            print(f"----- {process.log.name}\n{process.output()[-6000:]}")
