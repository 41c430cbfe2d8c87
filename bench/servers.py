"""Private servers for a run, each started when first asked for: PostgreSQL as durable as it comes, Redis, RabbitMQ."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import redis
import sqlalchemy as sa

from confect_celery.store import Store
from confect_celery.testing.servers import RabbitServer, Server, redis_server
from tests.support.databases import PostgresServer, open_directory

__all__ = ["DurablePostgres", "Servers", "machine"]

_SETTINGS = ("shared_buffers=512MB", "max_wal_size=4GB", "checkpoint_timeout=15min")


class DurablePostgres(PostgresServer):
    """The tests' PostgreSQL with its default durability: fsync and synchronous_commit on."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        argv = self.process.argv
        place = argv.index("fsync=off")
        more = [part for setting in _SETTINGS for part in ("-c", setting)]
        self.process.argv = argv[: place - 1] + argv[place + 1 :] + more


class Servers:
    """The servers of a run. `why_not` tells what cannot be had here, and how to get it."""

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="confect-bench-"))
        self.directory.chmod(0o755)
        self._brokers: dict[str, Server] = {}
        self._postgres: DurablePostgres | None = None
        self._numbers = 0
        self._filled: dict[int, str] = {}

    def why_not(self, broker: str) -> str | None:
        if broker == "rabbitmq" and not RabbitServer.installed():
            return "RabbitMQ is not installed; `make servers` installs it (apt, as root)"
        return None

    def broker(self, kind: str) -> str:
        """The address of a part of the broker that nobody has used."""
        if kind not in self._brokers:
            directory = self.directory / kind
            directory.mkdir()
            server: Server = RabbitServer(directory) if kind == "rabbitmq" else redis_server(directory)
            self._brokers[kind] = server  # so that it is ended even when its start fails
            server.start()
        url = self._brokers[kind].url()
        if kind == "redis":  # its 256 database numbers come round again in a long run, with what was left there
            client: Any = redis.Redis.from_url(url)
            client.flushdb()
            client.close()
        return url

    def database(self, kind: str, like: str | None = None) -> str:
        """The URL of a fresh database; on PostgreSQL it may be a copy of another that nobody is connected to."""
        self._numbers += 1
        if kind == "sqlite":
            return f"sqlite:///{self.directory}/{self._numbers}.db"
        if self._postgres is None:
            self._postgres = DurablePostgres(open_directory())
            self._postgres.start()
        copied = f" TEMPLATE {sa.make_url(like).database} STRATEGY FILE_COPY" if like else ""
        self._administer(f"CREATE DATABASE b{self._numbers}{copied}")
        return self._postgres.url(f"b{self._numbers}")

    def filled(self, rows: int, fill: Callable[[str], None]) -> str:
        """The URL of a database with so many rows, which `fill(url)` made once for the whole run: to be copied."""
        if rows not in self._filled:
            url = self.database("postgresql")
            fill(url)
            self._filled[rows] = url
        return self._filled[rows]

    def drop(self, url: str) -> None:
        """Remove a database: a million rows take half a gigabyte."""
        name = sa.make_url(url)
        if name.get_backend_name() == "postgresql":
            self._administer(f"DROP DATABASE {name.database} WITH (FORCE)")

    def _administer(self, statement: str) -> None:
        assert self._postgres is not None
        admin = sa.create_engine(self._postgres.url(), isolation_level="AUTOCOMMIT")
        with admin.connect() as connection:
            connection.exec_driver_sql(statement)
        admin.dispose()

    def durability(self) -> dict[str, str]:
        """How safe what the servers take is, as they themselves say; of those that run."""
        said = {}
        if self._postgres is not None:
            names = ("fsync", "synchronous_commit", "full_page_writes", "wal_sync_method")
            engine = sa.create_engine(self._postgres.url())
            with engine.connect() as connection:
                shown = [(name, connection.exec_driver_sql(f"SHOW {name}").scalar_one()) for name in names]
            engine.dispose()
            said["PostgreSQL"] = ", ".join(f"{name} {value}" for name, value in shown)
        store = Store(self.database("sqlite"))  # through our own engine, which sets them
        with store.database.autocommit() as connection:
            pragmas = ("journal_mode", "synchronous", "fullfsync")
            shown = [(name, connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()) for name in pragmas]
        store.database.dispose()
        said["SQLite"] = ", ".join(f"{name} {value}" for name, value in shown)
        if "redis" in self._brokers:
            client: Any = redis.Redis(port=self._brokers["redis"].port)
            asked = {**client.config_get("appendonly"), **client.config_get("save"), **client.config_get("appendfsync")}
            client.close()
            said["Redis"] = ", ".join(f"{name} {value or 'none'}" for name, value in sorted(asked.items()))
        if "rabbitmq" in self._brokers:
            said["RabbitMQ"] = (
                "durable classic queues, persistent messages; ours waits for the broker's confirmation, native does not"
            )
        return said

    def close(self) -> None:
        """End all, and remove what they wrote."""
        for server in self._brokers.values():
            server.close()
        if self._postgres is not None:
            self._postgres.stop()
            shutil.rmtree(self._postgres.process.cwd, ignore_errors=True)
        shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self) -> Servers:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()


def machine() -> dict[str, Any]:
    """What the figures hang on beside the code."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**30
    return {"cores": len(os.sched_getaffinity(0)), "memory_gib": memory, "load": os.getloadavg()[0]}
