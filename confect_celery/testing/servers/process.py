"""A process in a session of its own, and what every server made of one can do."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import socket
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

__all__ = ["LocalProcess", "Server", "free_port", "until"]

_PORTS: Final = range(10_000, 32_000)
"""Below those that systems give to connections: one of these could take the port before its server does."""

_TRIES: Final = 100


def free_port() -> int:
    """A TCP port that nobody listens on. Raises OSError where there is none."""
    for _ in range(_TRIES):
        port = secrets.choice(_PORTS)
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return port
    raise OSError(f"{_TRIES} ports between {_PORTS.start} and {_PORTS.stop} are in use")


def until(condition: Callable[[], object], what: str, within: float = 30.0) -> None:
    """Wait until `condition()` is true; raises TimeoutError."""
    end = time.monotonic() + within
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"waited {within} s for {what}")
        time.sleep(0.02)


class LocalProcess:
    """A process in a session of its own, its output in a file."""

    def __init__(self, argv: Sequence[str], log: Path, env: Mapping[str, str] | None = None, cwd: Path | None = None):
        self.argv, self.log, self.cwd = list(argv), log, cwd
        self.env = dict(os.environ if env is None else env)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Its process id, and its session's."""
        assert self._process is not None, "not started"
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._process is not None and self._process.poll() is None

    def output(self) -> str:
        """What it has said since it was last started."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def start(self) -> None:
        """Start it; its former output is forgotten."""
        with self.log.open("wb") as output:
            self._process = subprocess.Popen(
                self.argv, cwd=self.cwd, env=self.env, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
            )

    def kill(self, signum: int = signal.SIGKILL) -> None:
        """Send the signal to it, SIGKILL to its whole session, as a power cut would."""
        if self._process is None:
            return
        if signum == signal.SIGKILL:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(10)
        else:
            self._process.send_signal(signum)

    def stop(self, within: float = 20.0) -> None:
        """Ask it to end (SIGTERM), and make sure of it."""
        if self.alive:
            self.kill(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                assert self._process is not None
                self._process.wait(within)
        self.kill()


class Server(ABC):
    """A broker that can be started, stopped, and started again on the same port."""

    port: int
    process: LocalProcess

    @abstractmethod
    def url(self) -> str:
        """The address of a part of the server that nobody uses yet: a database number, a virtual host."""

    @abstractmethod
    def answers(self) -> bool:
        """Whether it is ready for clients."""

    def start(self, within: float = 60.0) -> None:
        """Start it and wait until it answers; nothing happens when it runs already."""
        if self.process.alive:
            return
        self.process.start()

        def ready() -> bool:
            if not self.process.alive:
                raise RuntimeError(f"{type(self).__name__} ended at once:\n{self.process.output()[-2000:]}")
            return self.answers()

        until(ready, f"{type(self).__name__} to answer", within)

    def stop(self) -> None:
        """End it; what it stores stays in its directory."""
        self.process.stop()

    def kill(self) -> None:
        """End it as a power cut would."""
        self.process.kill()

    def restart(self) -> None:
        """Stop and start."""
        self.stop()
        self.start()

    def close(self) -> None:
        """End it for good."""
        self.stop()

    def _talk(self, words: bytes, answer: bytes) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), 1) as connection:
                connection.settimeout(2)
                connection.sendall(words)
                return connection.recv(64).startswith(answer)
        except OSError:
            return False
