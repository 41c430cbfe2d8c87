"""A shop on each kind of broker."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.brokers.rig import Rig, rig
from tests.support.brokers import Brokers


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


@pytest.fixture(params=KINDS, ids=lambda kind: kind.name.replace(" ", "-"))
def kind(request: pytest.FixtureRequest) -> Kind:
    found: Kind = request.param
    return found


@pytest.fixture
def new_rig(brokers: Brokers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Rig]]:
    """Make a private shop without workers on a server of this kind; keyword arguments are settings."""
    with ExitStack() as stack:

        def make(server: str, url: str | None = None, **config: Any) -> Rig:
            return stack.enter_context(rig(tmp_path_factory.mktemp("shop"), url or brokers.url(server), config))

        yield make
