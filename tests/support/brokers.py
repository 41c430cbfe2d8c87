"""Private brokers for a test session: each started when first asked for, with a share of its own for every test."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from confect_celery.testing.servers import RabbitServer, RedisServer, Server, redis_server
from tests.support.databases import skip_or_fail

BROKERS = ("redis", "rabbitmq", "valkey", "filesystem")

__all__ = ["BROKERS", "Brokers", "RabbitServer", "RedisServer", "missing"]


def missing(kind: str) -> str | None:
    """Why a broker of this kind cannot be had here, and how to get it; None when it can."""
    if kind == "redis" and not shutil.which("redis-server"):
        return "redis-server is not installed; `make servers` installs it (apt, as root)"
    if kind == "rabbitmq" and not RabbitServer.installed():
        return "RabbitMQ is not installed; `make servers` installs it (apt, as root)"
    return None


class Brokers:
    """The brokers of a test session."""

    def __init__(self, directory: Callable[[str], Path]) -> None:
        self._directory = directory
        self._servers: dict[str, Server] = {}

    def server(self, kind: str) -> Server:
        """The session's server of this kind, running."""
        if kind not in self._servers:
            reason = missing(kind)
            if reason is not None:
                skip_or_fail(reason)
            self._servers[kind] = self._make(kind)
        server = self._servers[kind]
        server.start()  # a test may have left it down
        return server

    def url(self, kind: str) -> str:
        """An address on the session's server of this kind that nobody uses yet."""
        return "filesystem://localhost" if kind == "filesystem" else self.server(kind).url()

    def new(self, kind: str) -> Server:
        """A server that is not shared, not started: for tests that break it. The caller closes it."""
        reason = missing(kind)
        if reason is not None:
            skip_or_fail(reason)
        return self._make(kind)

    def close(self) -> None:
        for server in self._servers.values():
            server.close()

    def _make(self, kind: str) -> Server:
        directory = self._directory(kind)
        return RabbitServer(directory) if kind == "rabbitmq" else redis_server(directory, embedded=kind == "valkey")
