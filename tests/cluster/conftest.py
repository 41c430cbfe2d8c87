"""The shop of the broker tests in pytest-celery's model: brokers, a backend and a worker, each a process."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from pytest_celery import CeleryTestBackend, CeleryTestBroker, CeleryTestSetup

from confect_celery.testing.pytest_celery import *  # noqa: F403
from confect_celery.testing.pytest_celery import WorkerProcess
from tests.brokers.rig import Rig
from tests.support.brokers import missing
from tests.support.databases import skip_or_fail


class ShopWorker(WorkerProcess):
    app = "tests.brokers.shop"


@pytest.fixture(scope="session")
def celery_worker_by_process() -> bool:
    """Workers run this working tree's code, whatever the brokers run in."""
    return True


@pytest.fixture
def default_worker_container_cls() -> type[WorkerProcess]:
    return ShopWorker


@pytest.fixture(params=["redis", "rabbitmq"])
def celery_broker(request: pytest.FixtureRequest, celery_by_process: bool) -> Iterator[CeleryTestBroker]:
    reason = missing(request.param)
    if celery_by_process and reason is not None:
        skip_or_fail(reason)
    broker = request.getfixturevalue(f"celery_{request.param}_broker")
    yield broker
    broker.teardown()


@pytest.fixture
def celery_backend(request: pytest.FixtureRequest) -> Iterator[CeleryTestBackend]:
    backend = request.getfixturevalue("celery_redis_backend")
    yield backend
    backend.teardown()


@pytest.fixture
def config(request: pytest.FixtureRequest) -> dict[str, Any]:
    """More settings of the shop; a test gives them with `indirect`, each for all brokers or by the broker's name."""
    broker = request.node.callspec.params["celery_broker"]
    given = {name: value[broker] if isinstance(value, dict) else value for name, value in _param(request).items()}
    return {"task_ignore_result": False, **given}


def _param(request: pytest.FixtureRequest) -> dict[str, Any]:
    return dict(getattr(request, "param", {}))


@pytest.fixture
def rig(tmp_path: Path, celery_setup_config: dict[str, Any], config: dict[str, Any]) -> Iterator[Rig]:
    """The shop as this process sees it; its worker is the cluster's."""
    rig = Rig(tmp_path, celery_setup_config["broker_url"], {**config, **celery_setup_config})
    yield rig
    rig.close()


@pytest.fixture
def celery_setup_app(rig: Rig) -> Celery:
    app: Celery = rig.app
    return app


@pytest.fixture
def default_worker_env(default_worker_env: dict[str, str], rig: Rig, config: dict[str, Any]) -> dict[str, str]:
    """Broker and backend come to the worker as pytest-celery hands them on."""
    database = {"TEST_DATABASE_URL": rig.env["TEST_DATABASE_URL"], "TEST_CONFIG": json.dumps(config)}
    return {**default_worker_env, **database, "COVERAGE_PROCESS_START": os.environ.get("COVERAGE_PROCESS_START", "")}


@pytest.fixture
def cluster(celery_setup: CeleryTestSetup) -> Iterator[CeleryTestSetup]:
    """The set-up; what its worker said is printed, for pytest to show when the test fails."""
    yield celery_setup
    print(celery_setup.worker.logs()[-6000:])
