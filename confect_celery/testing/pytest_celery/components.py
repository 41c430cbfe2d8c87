"""pytest-celery's containers, each backed by a process of this machine."""

from __future__ import annotations

import shlex
import signal
import subprocess
import sys
import uuid
from collections.abc import Sequence
from typing import Any, ClassVar

from pytest_celery import CeleryWorkerContainer, RabbitMQContainer, RedisContainer

from confect_celery.testing.servers import LocalProcess, Server, until

__all__ = ["ProcessContainer", "RabbitProcess", "RedisProcess", "ValkeyProcess", "WorkerProcess"]


class ProcessContainer:
    """Answers as docker's own Container object does, as far as pytest-celery asks it."""

    def __init__(self, name: str, process: LocalProcess, server: Server | None = None) -> None:
        self.id = uuid.uuid4().hex
        self.name = name
        self.process = process
        self._server = server
        self.attrs: dict[str, Any] = {
            "Config": {"Hostname": "127.0.0.1", "Env": [f"{key}={value}" for key, value in process.env.items()]},
            "HostConfig": {"PortBindings": None},
            "NetworkSettings": {"Networks": {}, "Ports": {}},
        }

    @property
    def status(self) -> str:
        """As docker words it."""
        return "running" if self.process.alive else "exited"

    def reload(self) -> None:
        """Nothing is cached."""

    def logs(self, **_: Any) -> bytes:
        """What it has said since it was last started."""
        return self.process.output().encode()

    def kill(self, signal_or_name: int | str | None = None) -> None:
        """Send a signal, by default SIGKILL, and wait for the end of what it ends."""
        given = signal_or_name or signal.SIGKILL
        signum = signal.Signals[given] if isinstance(given, str) else signal.Signals(given)
        self.process.kill(signum)
        if signum in (signal.SIGKILL, signal.SIGTERM, signal.SIGQUIT, signal.SIGINT):
            until(lambda: not self.process.alive, f"{self.name} to end")

    def stop(self, timeout: float = 10) -> None:
        """Ask it to end, and make sure of it."""
        if self._server is not None:
            self._server.stop()
        else:
            self.process.stop(timeout)

    def restart(self, timeout: float = 10) -> None:
        """Stop and start again."""
        self.stop(timeout)
        if self._server is not None:
            self._server.start()
        else:
            self.process.start()

    def exec_run(self, command: str | Sequence[str], **_: Any) -> tuple[int, bytes]:
        """Run a command in the process' directory and environment; gives back its exit code and output."""
        argv = shlex.split(command) if isinstance(command, str) else list(command)
        if argv[0] == "python":
            argv[0] = sys.executable
        done = subprocess.run(argv, cwd=self.process.cwd, env=self.process.env, capture_output=True, check=False)
        return done.returncode, done.stdout + done.stderr


class _ServerProcess:
    """Mixed into pytest-celery's container classes: where this test's share of the server is."""

    _url: str
    _server: Server

    def __init__(self, server: Server) -> None:
        self._server, self._url = server, server.url()
        super().__init__(ProcessContainer(type(self).__name__, server.process, server))  # type: ignore[call-arg]

    def ready(self) -> bool:
        """Whether it answers."""
        return self._server.answers()

    @property
    def port(self) -> int:
        """Its port on this machine."""
        return self._server.port

    @property
    def url(self) -> str:
        """The address, the same for workers and for the test."""
        return self._url

    @property
    def host_url(self) -> str:
        """The address, the same for workers and for the test."""
        return self._url

    @property
    def vhost(self) -> str:
        """The database number or virtual host."""
        return self._url.rpartition("/")[2]


class RedisProcess(_ServerProcess, RedisContainer):
    """The system's redis-server, or the embedded Valkey where there is none."""


class ValkeyProcess(_ServerProcess, RedisContainer):
    """The embedded Valkey."""


class RabbitProcess(_ServerProcess, RabbitMQContainer):
    """RabbitMQ as the system's packages install it."""


class WorkerProcess(CeleryWorkerContainer):
    """A worker under this Python. Subclass it for the shop's own app, and give it to `default_worker_container_cls`."""

    app: ClassVar[str] = "app"
    """What `celery -A` is given."""

    options: ClassVar[Sequence[str]] = ("--concurrency", "2")
    """More options of `celery worker`."""

    @classmethod
    def command(cls, *args: str, **_: Any) -> list[str]:
        """The command, without the Python that runs it."""
        command: list[str] = super().command(*cls.options, *args)
        command[command.index("-A") + 1] = cls.app
        return command

    @classmethod
    def initial_env(cls, celery_worker_cluster_config: dict[str, Any], initial: Any = None) -> dict[str, str]:
        """The environment: brokers and backends by the addresses that hold on this machine."""
        seen = {
            name: cluster and {**cluster, "urls": cluster["host_urls"]}
            for name, cluster in celery_worker_cluster_config.items()
        }
        env: dict[str, str] = super().initial_env(seen, initial)
        return env

    def ready(self) -> bool:
        """Whether it has said so."""
        return self.ready_prompt in self.logs()
