"""The dispatcher inside beat, with each scheduler that shops use."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from confect_celery import Duration
from tests.contrib.conftest import PROJECT, Project, new_project
from tests.contrib.test_django_worker import Live
from tests.integration.rig import Rig, rig
from tests.support.brokers import Brokers
from tests.support.databases import Databases
from tests.support.processes import ROOT, Process
from tests.support.waiting import wait_for

FAR = Duration.seconds(3)
TICK = {"tick": {"task": "plain.add", "schedule": 1.0, "args": [1, 1]}}


def beat(rig: Rig, scheduler: str) -> Process:
    options = ["beat", "-S", scheduler, "--pidfile", "", "-l", "INFO"]
    if scheduler == "confect":
        options += ["-s", str(rig.directory / "beat")]
    argv = [sys.executable, "-m", "celery", "-A", "tests.integration.shop", *options]
    process = Process(argv, rig.directory / "beat.log", {**os.environ, **rig.env, "PYTHONPATH": str(ROOT)})
    process.start()
    return process


@pytest.fixture
def new_rig(brokers: Brokers, tmp_path: Path) -> Iterator[Callable[..., Rig]]:
    with ExitStack() as stack:

        def make(**config: Any) -> Rig:
            url = brokers.url("redis")
            settings = {"confect_dispatcher": "beat", "beat_schedule": TICK, "beat_max_loop_interval": 1, **config}
            return stack.enter_context(rig(tmp_path, url, {**settings, "redbeat_lock_timeout": 4}))

        yield make


@pytest.mark.parametrize("scheduler", ["confect", "confect-redbeat"])
def test_beat_dispatches_and_still_beats(new_rig: Callable[..., Rig], scheduler: str) -> None:
    rig = new_rig()
    worker = rig.worker(**{"TEST_CRONS": '{"cron": 1}'})
    rig.env["TEST_CRONS"] = '{"cron": 1}'
    far = [rig.scheduler.run_after(FAR, rig.shop.mark, {"label": f"far {n}"}) for n in range(5)]
    wait_for(lambda: rig.confect.clock.now() > rig.row(far[0]).scheduled_time, what="the due time to pass")
    assert {row.state.kind.value for row in rig.rows(far)} == {"pending"}, "no worker dispatches"

    first = beat(rig, scheduler)
    try:
        for row in rig.ended(far):
            assert row.state.kind == "success" and row.completed_time >= row.scheduled_time
        wait_for(lambda: rig.marks("plain 2") and rig.marks("cron"), what="beat's own entry and a cron")

        held = [rig.scheduler.run_after(FAR, rig.shop.mark, {"label": "held"}) for _ in range(5)]
        first.kill()
        first = beat(rig, scheduler)
        assert {row.state.kind.value for row in rig.ended(held, within=40)} == {"success"}
        assert len(rig.marks("held")) == 5
    finally:
        first.stop()
        print(first.output()[-4000:])
    assert "Traceback" not in first.output() and worker.alive


def test_a_beat_that_ends_gives_back_what_it_has_claimed(new_rig: Callable[..., Rig]) -> None:
    rig = new_rig(confect_horizon=20, confect_redelivery=60)
    process = beat(rig, "confect")
    try:
        wait_for(lambda: "beat: Starting" in process.output(), what="beat to start")
        id = rig.scheduler.run_after(Duration.seconds(30), rig.shop.mark, {"label": "given back"})
        due = rig.row(id).next_at
        wait_for(lambda: rig.row(id).next_at != due, within=30, what="the row to be claimed ahead of its time")
        process.stop()
        assert rig.row(id).next_at == due, "another dispatcher may take it at once"
    finally:
        process.end()


def test_beat_embedded_in_a_worker(new_rig: Callable[..., Rig]) -> None:
    rig = new_rig()
    rig.worker(
        "--pool", "prefork", "--concurrency", "1", "-B", "--scheduler", "confect", "-s", str(rig.directory / "beat")
    )
    far = rig.scheduler.run_after(FAR, rig.shop.mark, {"label": "embedded"})
    assert rig.end(far).state.kind == "success"
    wait_for(lambda: rig.marks("plain 2"), what="beat's own entry")


@pytest.fixture
def project(databases: Databases, tmp_path: Path) -> Iterator[Project]:
    with new_project("postgresql", databases, tmp_path) as it:
        yield it


def test_django_celery_beat(project: Project, brokers: Brokers, tmp_path: Path) -> None:
    project.env |= {"TEST_MORE_APPS": "django_celery_beat", "TEST_SETTINGS": '{"CELERY_CONFECT_DISPATCHER": "beat"}'}
    live = Live(project, brokers.url("redis"), tmp_path)
    argv = [sys.executable, "-m", "celery", "-A", "webshop", "beat", "-S", "confect-django", "--pidfile", ""]
    process = Process(argv, tmp_path / "beat.log", {**os.environ, **project.env}, cwd=PROJECT)
    try:
        project.manage("migrate")
        live.worker("--pool", "prefork", "--concurrency", "1")
        process.start()
        assert live.ended(live.schedule("remind", "by beat", times=3)) == ["success"] * 3
    finally:
        process.stop()
        live.close()
        print(process.output()[-4000:])
    assert "Traceback" not in process.output()
