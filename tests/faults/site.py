"""The servers of a campaign, each behind a proxy, and the faults that they and their clients can be given."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from redis import Redis

from confect_celery.testing.servers import RabbitServer, redis_server
from tests.faults.proxy import Proxy
from tests.faults.rig import Rig
from tests.support.databases import MariadbServer, PostgresServer, open_directory
from tests.support.waiting import wait_for

Fault = Callable[[], None]


class Site:
    """`broker`: redis, valkey or rabbitmq; `database`: postgresql, mariadb or sqlite."""

    def __init__(self, directory: Path, broker: str, database: str) -> None:
        self.directory = directory
        self._proxies: dict[str, Proxy] = {}
        self._mounted: Path | None = None
        self.database: Any = None
        with ExitStack() as started:
            self.broker: Any = RabbitServer(directory) if broker == "rabbitmq" else redis_server(
                directory, embedded=broker == "valkey")  # fmt: skip
            started.callback(self.broker.close)
            self.broker.start()
            self.broker_url = self._behind_proxy(started, "broker", self.broker.url())
            if database == "sqlite":
                self.database_url = f"sqlite:///{self._small_disk(started)}/shop.db"
            else:
                self.database_url = self._start_database(started, database)
            self._close = started.pop_all()  # all of it stands; what had begun when a start failed has ended by now

    def _start_database(self, started: ExitStack, kind: str) -> str:
        directory = open_directory()
        started.callback(shutil.rmtree, directory, ignore_errors=True)
        self.database = (PostgresServer if kind == "postgresql" else MariadbServer)(directory)
        started.callback(self.database.stop)
        if kind == "mariadb":  # the suite's loses what it committed in the second before a kill
            flush = "--innodb-flush-log-at-trx-commit="
            self.database.process.argv = [
                f"{flush}1" if option.startswith(flush) else option for option in self.database.process.argv
            ]
        self.database.start()
        name = "postgres" if kind == "postgresql" else "faults"
        if name == "faults":
            _create_database(self.database.url(), name)
        return self._behind_proxy(started, "database", self.database.url(name))

    def _behind_proxy(self, started: ExitStack, name: str, url: str) -> str:
        port = sa.make_url(url).port
        assert port is not None
        self._proxies[name] = Proxy(port)
        started.callback(self._proxies[name].close)
        return url.replace(f":{port}/", f":{self._proxies[name].port}/")

    def _small_disk(self, started: ExitStack) -> Path:
        disk = self.directory / "disk"
        disk.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", "size=48m", "tmpfs", str(disk)]
        if os.geteuid() == 0 and subprocess.run(mount, check=False, capture_output=True).returncode == 0:
            self._mounted = disk
            started.callback(subprocess.run, ["umount", "-l", str(disk)], check=False)
        return disk

    def faults(self, rig: Rig, dice: random.Random, skew: float = 0) -> dict[str, Fault]:
        """What can be done to this site and to the workers of `rig`, by name; `skew`: by how many seconds clocks are
        set wrong."""

        def to_one(signum: int, *, whole: bool = False) -> Fault:
            def fault() -> None:
                worker = dice.choice([each for each in rig.workers if each.alive] or rig.workers)
                with contextlib.suppress(ProcessLookupError):
                    (os.killpg if whole else os.kill)(worker.pid, signum)

            return fault

        def child() -> None:
            children = [pid for worker in rig.workers if worker.alive for pid in _children(worker.pid)]
            if children:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(dice.choice(children), signal.SIGKILL)

        def clock() -> None:
            worker = dice.choice(rig.workers)
            rig.skew(worker, dice.choice((-skew, 0, skew)))
            with contextlib.suppress(ProcessLookupError):
                os.kill(worker.pid, signal.SIGTERM)  # it is started again with its new clock

        found: dict[str, Fault] = {
            "worker killed": to_one(signal.SIGKILL, whole=True),
            "child killed": child,
            "worker stopped warm": to_one(signal.SIGTERM),
            "worker stopped cold": to_one(signal.SIGQUIT),
        }
        for name, proxy in self._proxies.items():
            found[f"{name} connections cut"] = proxy.cut
            found[f"{name} connections stalled"] = lambda proxy=proxy: self._stall(proxy)
        if isinstance(self.broker, RabbitServer):
            found["broker stopped and started"] = self.broker.restart
        else:
            found["broker restarted with its data"] = lambda: self._restart_redis(keeps=True)
            found["broker restarted empty"] = lambda: self._restart_redis(keeps=False)
        if self.database is not None:
            found["database stopped and started"] = lambda: self._restart_database(kill=False)
            found["database killed"] = lambda: self._restart_database(kill=True)
        if skew:
            found["skew"] = clock
        if self._mounted is not None:
            found["disk full"] = self._fill
        return found

    def _stall(self, proxy: Proxy) -> None:
        proxy.stall()
        time.sleep(4)
        proxy.flow()

    def _restart_redis(self, *, keeps: bool) -> None:
        if keeps:
            with contextlib.closing(Redis.from_url(self.broker.url())) as redis:
                redis.save()
        self.broker.kill()
        if not keeps:
            for dump in self.directory.rglob("dump.rdb"):
                dump.unlink()
        time.sleep(1)
        self.broker.start()

    def _restart_database(self, *, kill: bool) -> None:
        if kill:
            self.database.process.kill()
        else:
            self.database.stop()
        time.sleep(1)
        wait_for(self._database_starts, within=40, what="the database to start")

    def _database_starts(self) -> bool:
        try:
            self.database.start()  # after a kill its shared memory may be busy for a moment
        except AssertionError:
            return False
        return True

    def _fill(self) -> None:
        assert self._mounted is not None
        ballast = self._mounted / "ballast"
        until = time.monotonic() + 4
        with ballast.open("wb", buffering=0) as file:
            while time.monotonic() < until:
                try:
                    file.write(b"\0" * 4096)
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise
                    time.sleep(0.01)
        ballast.unlink()

    def close(self) -> None:
        """End everything."""
        self._close.close()


def _children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _create_database(url: str, name: str) -> None:
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
    engine.dispose()
