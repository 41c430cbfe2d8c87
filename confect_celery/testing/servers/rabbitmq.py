"""A private RabbitMQ."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
from pathlib import Path
from typing import Final

from confect_celery.testing.servers.process import LocalProcess, Server, free_port

__all__ = ["RabbitServer"]

_RABBIT_BIN: Final = Path("/usr/lib/rabbitmq/bin")
"""The distribution's wrapper in /usr/sbin changes the user and reads the system's settings; these do not."""


class RabbitServer(Server):
    """RabbitMQ as installed by the system's packages, with a node, a port mapper and a directory of its own."""

    def __init__(self, directory: Path) -> None:
        self.port = free_port()
        self._vhosts: list[str] = []
        self._numbers = itertools.count(1)
        epmd_port = str(free_port())
        for name in ("log", "mnesia"):
            (directory / name).mkdir()
        (directory / "plugins").write_text("[].\n")
        (directory / "none").touch()
        (directory / "rabbitmq.conf").write_text(
            "vm_memory_high_watermark.absolute = 512MB\ndisk_free_limit.absolute = 50MB\n"
        )
        self.env = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("RABBITMQ_", "ERL_"))},
            "HOME": str(directory),
            "LANG": "C.UTF-8",
            "ERL_EPMD_PORT": epmd_port,
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": f"confect{self.port}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(free_port()),
            "RABBITMQ_MNESIA_BASE": str(directory / "mnesia"),
            "RABBITMQ_LOG_BASE": str(directory / "log"),
            "RABBITMQ_PID_FILE": str(directory / "pid"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(directory / "plugins"),
            "RABBITMQ_CONFIG_FILE": str(directory / "rabbitmq"),
            "RABBITMQ_CONF_ENV_FILE": str(directory / "none"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 2:2 +sbwt none -kernel inet_dist_use_interface {127,0,0,1}",
        }
        # Started by us, the port mapper is our child; RabbitMQ would leave one of its own behind.
        epmd = shutil.which("epmd") or "epmd"
        self._epmd = LocalProcess([epmd, "-port", epmd_port], directory / "epmd.log", self.env, directory)
        serve = [str(_RABBIT_BIN / "rabbitmq-server")]
        self.process = LocalProcess(serve, directory / "rabbitmq.log", self.env, directory)

    def start(self, within: float = 60.0) -> None:
        """Start it and wait until it answers: 4 to 6 s."""
        if not self._epmd.alive:
            self._epmd.start()
        super().start(within)

    def stop(self) -> None:
        """Shut it down in order: what is durable is on disk."""
        if self.process.alive:
            self.control("shutdown")
        self.process.stop()

    def close(self) -> None:
        """End it and its port mapper."""
        self.stop()
        self._epmd.stop()

    def url(self) -> str:
        """The address of a virtual host of its own."""
        if not self._vhosts:  # every command starts a virtual machine of Erlang's: some at once
            self._vhosts = [f"t{next(self._numbers)}" for _ in range(8)]
            made = ", ".join(f'<<"{name}">>' for name in self._vhosts)
            self.control(
                "eval",
                f'[begin rabbit_vhost:add(V, <<"tests">>), rabbit_auth_backend_internal:set_permissions('
                f'<<"guest">>, V, <<".*">>, <<".*">>, <<".*">>, <<"tests">>) end || V <- [{made}]].',
            )
        return f"amqp://guest:guest@127.0.0.1:{self.port}/{self._vhosts.pop(0)}"

    def answers(self) -> bool:
        """Whether it answers the protocol's greeting, which it does last of all."""
        return self._talk(b"AMQP\x00\x00\x09\x01", b"\x01")

    def control(self, *command: str) -> str:
        """Run `rabbitmqctl`; gives back what it said, raises CalledProcessError when it failed."""
        argv = [str(_RABBIT_BIN / "rabbitmqctl"), "-q", *command]
        return subprocess.run(argv, env=self.env, check=True, capture_output=True, text=True, timeout=60).stdout

    @staticmethod
    def installed() -> bool:
        """Whether the system has it."""
        return (_RABBIT_BIN / "rabbitmq-server").exists()
