"""A shop on each kind of broker."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.brokers.rig import Rig, rig
from tests.support.brokers import Brokers
from tests.support.processes import Worker


@dataclass(frozen=True)
class Kind:
    """A broker and how a shop uses it."""

    name: str
    server: str
    config: dict[str, Any] = field(default_factory=dict)


TOPIC = {"task_default_exchange": "shop", "task_default_exchange_type": "topic", "task_default_routing_key": "shop.all"}
QUORUM = {"task_default_queue_type": "quorum"}

KINDS = [
    Kind("redis", "redis"),
    Kind("valkey", "valkey"),
    Kind("rabbitmq classic", "rabbitmq"),
    Kind("rabbitmq quorum", "rabbitmq", QUORUM),
    Kind("rabbitmq quorum topic", "rabbitmq", {**QUORUM, **TOPIC, "task_create_missing_queue_exchange_type": "topic"}),
]


ROUTES = {"internal/mail/*": {"queue": "mail"}, "plain.*": {"queue": "plain"}}


@dataclass(frozen=True)
class Shared:
    """A shop with two workers, for tests that leave it as they found it."""

    kind: Kind
    rig: Rig
    first: Worker
    """It consumes the queues shop and special."""
    second: Worker
    """It consumes the queues shop, mail, plain and aside."""


@pytest.fixture(scope="session", params=KINDS, ids=lambda kind: kind.name.replace(" ", "-"))
def shared(
    request: pytest.FixtureRequest, brokers: Brokers, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Shared]:
    kind: Kind = request.param
    config = {**kind.config, "task_routes": ROUTES, "task_default_queue": "shop"}
    with rig(tmp_path_factory.mktemp("shared"), brokers.url(kind.server), config) as it:
        queues = ("shop,special", "shop,mail,plain,aside")
        first, second = it.start_workers(*(("--concurrency", "2", "-Q", names) for names in queues))
        yield Shared(kind, it, first, second)


@pytest.fixture
def new_rig(brokers: Brokers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Rig]]:
    """Make a private shop without workers on a server of this kind; keyword arguments are settings."""
    with ExitStack() as stack:

        def make(server: str, url: str | None = None, **config: Any) -> Rig:
            return stack.enter_context(rig(tmp_path_factory.mktemp("shop"), url or brokers.url(server), config))

        yield make
