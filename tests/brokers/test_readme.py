"""README's "Your own database and broker", done as it says, on other people's servers."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from tests.support.brokers import Brokers
from tests.support.databases import Databases
from tests.support.processes import ROOT, Worker
from tests.support.waiting import wait_for

README = (ROOT / "README.md").read_text()


def celery(directory: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "celery", "-A", "shop", *arguments],
        cwd=directory,
        env={**os.environ, "PYTHONPATH": str(directory)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(params=["postgresql", "mariadb"])
def url(request: pytest.FixtureRequest, databases: Databases, tmp_path: Path) -> Iterator[str]:
    with databases.url(request.param, tmp_path) as url:
        yield url


@pytest.mark.timeout(180)  # it starts four processes in turn, 40 s of a slow core
def test_the_quick_start_on_your_own_servers(url: str, brokers: Brokers, tmp_path: Path) -> None:
    database, broker = ("postgresql", "redis") if url.startswith("postgresql") else ("mariadb", "rabbitmq")
    settings = re.search(r"```ini\n(.*?)```", README, re.DOTALL)
    code = re.search(r"```python\n(.*?)```", README, re.DOTALL)
    assert settings is not None and code is not None
    given = {"broker_url": brokers.url(broker), "confect_database_url": url}
    lines = (line.partition(" = ") for line in settings[1].splitlines())
    configured = "".join(f"app.conf.{name} = {given.get(name) or eval(value)!r}\n" for name, _, value in lines)
    shop = code[1].replace("confect = Confect(app)", f"{configured}confect = Confect(app)")
    (tmp_path / "shop.py").write_text(shop)

    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.execute(sa.text("CREATE TABLE users (id VARCHAR(36) PRIMARY KEY, verified BOOLEAN)"))
        identity = "SERIAL" if database == "postgresql" else "INTEGER AUTO_INCREMENT"
        outbox = f"CREATE TABLE outbox (id {identity} PRIMARY KEY, user_id VARCHAR(36), subject TEXT)"
        connection.execute(sa.text(outbox))

    assert "CREATE TABLE" in celery(tmp_path, "confect", "migrate", "--sql")
    celery(tmp_path, "confect", "migrate")
    celery(tmp_path, "confect", "check")
    worker = Worker("shop", tmp_path, {"PYTHONPATH": str(tmp_path)})
    worker.env = {**os.environ, "PYTHONPATH": str(tmp_path)}
    worker.cwd = tmp_path
    worker.start()
    try:
        web = """
from shop import *
confect.run_mutation(register, UserRef(user_id="zoe"))
with confect.reader() as db:
    row = db.table("_scheduled_functions").unique()
print(row.name, row.state.kind, confect.scheduler.reschedule(row.id, Duration.seconds(1)))
"""
        said = subprocess.run(
            [sys.executable, "-c", web], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True
        ).stdout
        assert said.split() == ["internal/users/send_reminder", "pending", "True"]

        def reminded() -> object:
            with engine.connect() as connection:
                return connection.execute(sa.text("SELECT user_id, subject FROM outbox")).all()

        assert wait_for(reminded, within=20, what="the reminder") == [("zoe", "Please verify your email")]
    finally:
        worker.stop()
        engine.dispose()
        print(worker.output()[-4000:])
