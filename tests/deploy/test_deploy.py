"""Every process that deploy/ starts is started for real, with its own command line and environment."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.brokers import Brokers
from tests.support.databases import Databases
from tests.support.processes import ROOT, Process, free_port
from tests.support.waiting import wait_for

DEPLOY = ROOT / "deploy"
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
SYSTEMD = sorted((DEPLOY / "systemd").glob("*.service"))
CELERY = [sys.executable, "-m", "celery"]


def kubernetes() -> dict[str, dict[str, Any]]:
    found = {}
    for name in yaml.safe_load((DEPLOY / "kubernetes" / "kustomization.yaml").read_text())["resources"]:
        for document in yaml.safe_load_all((DEPLOY / "kubernetes" / name).read_text()):
            found[f"{document['kind']}/{document['metadata']['name']}"] = document
    return found


KUBERNETES = kubernetes()


def container(document: dict[str, Any]) -> dict[str, Any]:
    (it,) = document["spec"]["template"]["spec"]["containers"]
    return dict(it)


class Site:
    """Servers, and the environment that names them as deploy/ does."""

    def __init__(self, database_url: str, broker_url: str, directory: Path) -> None:
        self.directory = directory
        self.given = {"SHOP_DATABASE_URL": database_url, "SHOP_BROKER_URL": broker_url}
        self.processes: list[Process] = []

    def env(self, names: dict[str, str]) -> dict[str, str]:
        """The environment of a process, the servers' addresses being ours; each name must be one that deploy/ sets."""
        plain = {name: re.sub(r"\$\{\w+:-(.*?)\}", r"\1", value) for name, value in names.items()}
        assert self.given.keys() <= plain.keys()
        return {**os.environ, **plain, **self.given, "PYTHONPATH": str(ROOT)}

    def start(self, name: str, command: list[str], names: dict[str, str], ready: str) -> Process:
        process = Process([*CELERY, "-A", "tasks", *command], self.directory / f"{name}.log", self.env(names), ROOT)
        self.processes.append(process)
        process.start()
        wait_for(lambda: ready in process.output(), within=30, what=f"{name} to say {ready!r}")
        return process

    def run(self, command: list[str], names: dict[str, str]) -> subprocess.CompletedProcess[str]:
        env = self.env(names)
        return subprocess.run(
            [*CELERY, *command], env=env, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
        )

    def reminded(self, email: str) -> None:
        """Register a user, have the reminder come at once, and wait for it."""
        code = f"""
from confect_celery import Duration
from tasks import confect, users
user = confect.run_mutation(users.register, users.Register(email={email!r}))
with confect.reader() as db:
    jobs = db.table("_scheduled_functions").filter(lambda q: q.eq(q.field("args.user_id"), user.user_id)).collect()
for job in jobs:
    confect.scheduler.reschedule(job.id, Duration.seconds(3))
print(jobs[0].id)
"""
        env = self.env(dict(COMPOSE["worker"]["environment"]))
        said = subprocess.run(
            [sys.executable, "-c", code], env=env, cwd=ROOT, capture_output=True, text=True, check=True
        )
        id = said.stdout.strip()
        look = f"from tasks import confect; print(confect.scheduler.get({id!r}).state.kind.value)"

        def ended() -> bool:
            done = subprocess.run([sys.executable, "-c", look], env=env, cwd=ROOT, capture_output=True, text=True)
            return done.stdout.strip() == "success"

        wait_for(ended, within=30, what="the reminder")


@pytest.fixture
def site(databases: Databases, brokers: Brokers, tmp_path: Path) -> Iterator[Site]:
    with databases.url("postgresql", tmp_path) as url:
        it = Site(url, brokers.url("redis"), tmp_path)
        yield it
        for process in it.processes:
            process.stop()
            print(f"----- {process.log.name}\n{process.output()[-3000:]}")


def probe(document: dict[str, Any], name: str) -> list[str]:
    command = container(document)[name]["exec"]["command"]
    assert command[0] == "celery"
    return list(command[1:])


@pytest.mark.timeout(150)
def test_compose(site: Site) -> None:
    environment = dict(COMPOSE["worker"]["environment"])
    check = COMPOSE["worker"]["healthcheck"]["test"][2:]
    assert site.run(check, environment).returncode == 1, "not migrated yet: not healthy"
    migrated = site.run(["-A", "tasks", *COMPOSE["migrate"]["command"]], environment)
    assert migrated.returncode == 0, migrated.stdout + migrated.stderr
    port = free_port()
    site.start("worker", COMPOSE["worker"]["command"], environment, "ready.")
    flower = [part.replace("5555", str(port)) for part in COMPOSE["flower"]["command"]]
    site.start("flower", flower, environment, "Visit me at")
    assert urllib.request.urlopen(f"http://127.0.0.1:{port}/healthcheck", timeout=10).status == 200
    site.reminded("compose@b.c")
    healthy = site.run(check, environment)
    assert healthy.returncode == 0, healthy.stdout + healthy.stderr


@pytest.mark.timeout(150)
@pytest.mark.parametrize("who", ["dispatcher", "beat"])
def test_compose_with_the_dispatcher_elsewhere(site: Site, who: str) -> None:
    environment = dict(COMPOSE["worker"]["environment"])
    elsewhere = {**environment, "SHOP_DISPATCHER": {"dispatcher": "off", "beat": "beat"}[who]}
    site.run(["-A", "tasks", *COMPOSE["migrate"]["command"]], environment)
    site.start("worker", COMPOSE["worker"]["command"], elsewhere, "ready.")
    given = elsewhere if who == "dispatcher" else dict(COMPOSE["beat"]["environment"])
    command = [part.replace("/tmp/beat", str(site.directory / "schedule")) for part in COMPOSE[who]["command"]]
    site.start(who, command, given, {"dispatcher": "is running", "beat": "is starting"}[who])
    site.reminded("elsewhere@b.c")


@pytest.mark.timeout(150)
def test_kubernetes(site: Site) -> None:
    names = {**KUBERNETES["ConfigMap/shop"]["data"], **KUBERNETES["Secret/shop"]["stringData"]}
    worker, dispatcher = KUBERNETES["Deployment/shop-worker"], KUBERNETES["Deployment/shop-dispatcher"]
    assert site.run(probe(worker, "startupProbe"), names).returncode == 1
    migrated = site.run(["-A", "tasks", *container(KUBERNETES["Job/shop-migrate"])["args"]], names)
    assert migrated.returncode == 0, migrated.stderr
    site.start("worker", container(worker)["args"], names, "ready.")
    site.start("dispatcher", container(dispatcher)["args"], names, "is running")
    site.reminded("kubernetes@b.c")
    for document in (worker, dispatcher):
        assert site.run(probe(document, "readinessProbe"), names).returncode == 0

    site.given["SHOP_DATABASE_URL"] = f"postgresql://127.0.0.1:{free_port()}/shop"
    gone = site.run(probe(worker, "readinessProbe"), names)
    assert gone.returncode == 1 and "Traceback" not in gone.stderr, gone.stderr


@pytest.mark.timeout(150)
def test_systemd(site: Site) -> None:
    lines = (DEPLOY / "systemd" / "shop.env").read_text().splitlines()
    names = dict(line.split("=", 1) for line in lines)
    site.run(["-A", "tasks", "confect", "migrate"], names)
    ready = {"worker": "ready.", "dispatcher": "is running", "beat": "is starting", "flower": "Visit me at"}
    port = free_port()
    for unit in SYSTEMD:
        text = unit.read_text()
        assert "Restart=always" in text and "EnvironmentFile=/etc/shop/shop.env" in text
        for line in re.findall(r"^Exec(?:Start|StartPre)=(.*)$", text, re.MULTILINE):
            line = line.replace("%i", "1").replace("%%", "%").replace("5555", str(port))
            program, *command = shlex.split(line.replace("/var/lib/shop", str(site.directory)))
            assert program == "/srv/shop/.venv/bin/celery" and command[:2] == ["-A", "tasks"]
            if command[2:] == ["confect", "check"]:
                assert site.run(command, names).returncode == 0
            else:
                who = unit.name.removeprefix("shop-").removesuffix(".service").rstrip("@")
                site.start(who, command[2:], names, ready[who])
    site.reminded("systemd@b.c")
