"""The fixtures as a shop uses them: imported into its conftest, or named as a plugin; with and without Docker."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import docker
import pytest
from docker.errors import DockerException

from confect_celery.testing.pytest_celery import fixtures
from tests.support.processes import ROOT

IMPORTED = "from confect_celery.testing.pytest_celery import *\n"
NAMED = 'pytest_plugins = "confect_celery.testing.pytest_celery"\n'

CONFTEST = """
import pytest

@pytest.fixture(scope="session")
def celery_by_process():
    return {by_process}

@pytest.fixture(params=["{broker}"])
def celery_broker(request):
    return request.getfixturevalue(request.param)

@pytest.fixture
def celery_backend(celery_redis_backend):
    return celery_redis_backend
"""

TEST = """
from pytest_celery.vendors.worker.tasks import add

def test_the_generated_app(celery_setup):
    assert celery_setup.ready(ping=True, control=False, docker=True)
    assert add.s(1, 2).apply_async().get(timeout=10) == 3
    assert celery_setup.app.control.ping([celery_setup.worker.hostname()])
    code, said = celery_setup.worker.container.exec_run("python -c 'import app; print(app.app.main)'")
    assert code == 0 and b"celery_test_app" in said
"""


def _suite(directory: Path, head: str, **values: object) -> subprocess.CompletedProcess[str]:
    (directory / "conftest.py").write_text(head + CONFTEST.format(**values))
    (directory / "test_it.py").write_text(TEST)
    options = ["-p", "no:cacheprovider", "-q", "--rootdir", str(directory), "-c", os.devnull]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "pytest", *options, str(directory)]
    return subprocess.run(command, capture_output=True, text=True, env=env, cwd=directory, timeout=55, check=False)


def test_a_suite_by_processes(tmp_path: Path) -> None:
    done = _suite(tmp_path, NAMED, by_process=True, broker="celery_valkey_broker")
    assert done.returncode == 0 and "1 passed" in done.stdout, done.stdout[-4000:]


def test_a_suite_with_docker_gets_pytest_celerys_containers(tmp_path: Path) -> None:
    try:
        docker.from_env(timeout=5).close()
    except DockerException:
        done = _suite(tmp_path, IMPORTED, by_process=False, broker="celery_redis_broker")
        assert done.returncode == 1 and "docker.errors.DockerException" in done.stdout, done.stdout[-4000:]
    else:
        assert fixtures.docker_answers()


def test_docker_is_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere.sock")
    assert not fixtures.docker_answers()
