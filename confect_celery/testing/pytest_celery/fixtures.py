"""The fixtures that put processes in the place of containers."""

from __future__ import annotations

import gc
import os
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import docker
import pytest
from docker.errors import DockerException
from pytest_celery import CeleryWorkerContainer, RedisTestBroker

from confect_celery.testing.pytest_celery.components import (
    ProcessContainer,
    RabbitProcess,
    RedisProcess,
    ValkeyProcess,
    WorkerProcess,
)
from confect_celery.testing.servers import LocalProcess, RabbitServer, Server, redis_server, until


def docker_answers() -> bool:
    """Whether a Docker engine runs."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # docker's client leaves the socket open that nobody answers
        try:
            docker.from_env(timeout=5).close()
        except DockerException:
            return False
        finally:
            gc.collect()
    return True


class LocalServers:
    """The servers of a session, each started when first asked for, and again after a test has left it down."""

    def __init__(self, factory: pytest.TempPathFactory) -> None:
        self._factory = factory
        self._servers: dict[str, Server] = {}

    def get(self, name: str) -> Server:
        """The server of this name: "redis", "valkey", "rabbitmq", "backend"; it is running."""
        if name not in self._servers:
            directory = self._factory.mktemp(name)
            made = RabbitServer(directory) if name == "rabbitmq" else redis_server(directory, embedded=name == "valkey")
            self._servers[name] = made
        self._servers[name].start()
        return self._servers[name]

    def close(self) -> None:
        """End them all."""
        for server in self._servers.values():
            server.close()


@pytest.fixture(scope="session")
def celery_process_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalServers]:
    """The private servers of this session."""
    servers = LocalServers(tmp_path_factory)
    yield servers
    servers.close()


@pytest.fixture(scope="session")
def celery_by_process() -> bool:
    """Whether brokers and backends are processes: where no Docker engine answers. Override it to decide yourself."""
    return not docker_answers()


@pytest.fixture(scope="session")
def celery_worker_by_process(celery_by_process: bool) -> bool:
    """Whether workers are processes. They can be, beside brokers in containers."""
    return celery_by_process


@pytest.fixture
def default_redis_broker(request: pytest.FixtureRequest, celery_by_process: bool) -> Any:
    """Redis as the broker."""
    if not celery_by_process:
        return request.getfixturevalue("default_redis_broker")  # the one that this overrides
    return RedisProcess(request.getfixturevalue("celery_process_servers").get("redis"))


@pytest.fixture
def default_redis_backend(request: pytest.FixtureRequest, celery_by_process: bool) -> Any:
    """Redis for the results: another server than the broker's, so that each can be killed alone."""
    if not celery_by_process:
        return request.getfixturevalue("default_redis_backend")
    return RedisProcess(request.getfixturevalue("celery_process_servers").get("backend"))


@pytest.fixture
def default_rabbitmq_broker(request: pytest.FixtureRequest, celery_by_process: bool) -> Any:
    """RabbitMQ as the broker; skipped where it is not installed."""
    if not celery_by_process:
        return request.getfixturevalue("default_rabbitmq_broker")
    if not RabbitServer.installed():
        pytest.skip("RabbitMQ is not installed: apt-get install rabbitmq-server, or run a Docker engine")
    return RabbitProcess(request.getfixturevalue("celery_process_servers").get("rabbitmq"))


@pytest.fixture
def celery_valkey_broker(celery_process_servers: LocalServers) -> Iterator[RedisTestBroker]:
    """The embedded Valkey as the broker."""
    broker = RedisTestBroker(ValkeyProcess(celery_process_servers.get("valkey")))
    yield broker
    broker.teardown()


@pytest.fixture
def default_worker_container_cls(celery_worker_by_process: bool) -> type[CeleryWorkerContainer]:
    """The worker's class; override it with a subclass of WorkerProcess."""
    return WorkerProcess if celery_worker_by_process else CeleryWorkerContainer


@pytest.fixture
def default_worker_container(
    request: pytest.FixtureRequest, celery_worker_by_process: bool, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Any]:
    """The worker, ready."""
    if not celery_worker_by_process:
        yield request.getfixturevalue("default_worker_container")
        return
    directory = tmp_path_factory.mktemp("worker")
    for name, content in request.getfixturevalue("default_worker_initial_content").items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    env = {**os.environ, **request.getfixturevalue("default_worker_env")}
    env["PYTHONPATH"] = os.pathsep.join([str(directory), str(request.config.rootpath), env.pop("PYTHONPATH", "")])
    process = LocalProcess([sys.executable], directory / "worker.log", env, directory)
    container = ProcessContainer("worker", process)
    # The node's own idea of the worker's hostname is the container's id.
    command = request.getfixturevalue("default_worker_command")
    process.argv += ["-m", *(part.replace("@%h", f"@{container.id[:12]}") for part in command)]
    process.start()
    try:
        worker = request.getfixturevalue("default_worker_container_cls")(container)
        until(lambda: worker.ready() or not process.alive, "the worker to be ready")
        assert process.alive, process.output()
        yield worker
    finally:
        process.kill()  # as a container's removal would: whatever a test has left running ends at once
