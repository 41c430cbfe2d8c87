"""The bookshop on a broker, with one capture mode: its worker, and a client process that calls its tasks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.legacy.bookstore import journal
from tests.support.brokers import Brokers
from tests.support.processes import ROOT, Process, Worker
from tests.support.waiting import wait_for

MODULE = "tests.legacy.bookstore.celeryapp"


class Client:
    """Evaluates expressions in a process of the shop's."""

    def __init__(self, env: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.legacy.client"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**os.environ, **env},
        )

    def __call__(self, expression: str) -> Any:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(expression) + "\n")
        self._process.stdin.flush()
        said = json.loads(self._process.stdout.readline())
        assert "error" not in said, f"{expression}: {said['error']}"
        return said["value"]

    def close(self) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(10)
        self._process.stdout.close()


class Bookstore:
    """The shop as the tests see it."""

    def __init__(self, directory: Path, broker_url: str, results_url: str, mode: str, quorum: bool) -> None:
        self.directory, self.mode = directory, mode
        self.env = {
            "BOOKSTORE_BROKER": broker_url,
            "BOOKSTORE_RESULTS": results_url,
            "BOOKSTORE_DATABASE": f"sqlite:///{directory / 'books.db'}",
            "BOOKSTORE_JOURNAL": str(directory / "journal"),
            "BOOKSTORE_CAPTURE": mode,
            "BOOKSTORE_QUORUM": "1" if quorum else "",
        }
        self.processes: list[Process] = []
        self.call = Client(self.env)

    def worker(self) -> Worker:
        """One more worker."""
        worker = Worker(MODULE, self.directory, self.env, "--concurrency", "2", "-Q", "celery,mail")
        self.processes.append(worker)
        worker.start()
        return worker

    def beat(self) -> Process:
        """Celery's own beat."""
        argv = [sys.executable, "-m", "celery", "-A", MODULE, "beat", "-s", str(self.directory / "beat")]
        beat = Process(argv, self.directory / "beat.log", {**os.environ, **self.env, "PYTHONPATH": str(ROOT)})
        self.processes.append(beat)
        beat.start()
        return beat

    def close(self) -> None:
        for process in self.processes:
            process.end()
        self.call.close()

    # -- seeing

    def written(self, what: str) -> list[float]:
        """When the shop wrote this into its journal."""
        return [at for at, found in journal.read(self.directory / "journal") if found == what]

    def wait_written(self, what: str, times: int = 1, within: float = 30) -> list[float]:
        """Wait until it has been written that often."""
        return wait_for(
            lambda: self.written(what) if len(self.written(what)) >= times else None, within=within, what=what
        )

    def row(self, id: str) -> dict[str, Any]:
        """The row of this id."""
        found = self.call(f"row({id!r})")
        assert found is not None, f"there is no row {id}"
        return dict(found)

    def ended(self, id: str, within: float = 30) -> dict[str, Any]:
        """Wait until the row is terminal."""

        def end() -> dict[str, Any] | None:
            row = self.row(id)
            return row if row["state"] in ("success", "failed", "canceled") else None

        return wait_for(end, within=within, what=f"the end of {id}")

    def becomes(self, id: str, state: str, within: float = 30) -> dict[str, Any]:
        """Wait until the row is in this state."""
        return wait_for(lambda: (r := self.row(id))["state"] == state and r, within=within, what=f"{id} to be {state}")

    def result(self, id: str) -> Any:
        """What the result backend holds, once the task has ended."""
        return self.call(f"app.AsyncResult({id!r}).get(timeout=20, propagate=False)")


@contextmanager
def bookstore(brokers: Brokers, directory: Path, server: str, mode: str, quorum: bool = False) -> Iterator[Bookstore]:
    shop = Bookstore(directory, brokers.url(server), brokers.url("redis"), mode, quorum)
    try:
        yield shop
    finally:
        shop.close()
        for process in shop.processes:
            print(f"----- {process.log.name}\n{process.output()[-6000:]}")


SHOPS = [
    ("redis", "durable"),
    ("redis", "mirror"),
    ("rabbitmq", "durable"),
    ("rabbitmq", "mirror"),
    ("quorum", "durable"),
]


@pytest.fixture(scope="session", params=SHOPS, ids="-".join)
def shop(
    request: pytest.FixtureRequest, brokers: Brokers, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Bookstore]:
    """A shop with one worker, for tests that leave it as they found it."""
    server, mode = request.param
    quorum = server == "quorum"
    with bookstore(
        brokers, tmp_path_factory.mktemp("books"), "rabbitmq" if quorum else server, mode, quorum=quorum
    ) as it:
        it.worker()
        yield it


@pytest.fixture
def new_shop(brokers: Brokers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Bookstore]]:
    """Make a private shop without workers."""
    with ExitStack() as stack:

        def make(server: str = "redis", mode: str = "durable") -> Bookstore:
            return stack.enter_context(bookstore(brokers, tmp_path_factory.mktemp("books"), server, mode))

        yield make
