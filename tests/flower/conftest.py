"""A shop with two workers and a Flower on Redis and on RabbitMQ."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import pytest

from tests.flower.rig import Flower, Rig, rig
from tests.support.brokers import Brokers


@dataclass(frozen=True)
class Shared:
    """A shop for tests that leave it as they found it."""

    rig: Rig
    flower: Flower


@pytest.fixture(scope="session", params=["redis", "rabbitmq"])
def shared(
    request: pytest.FixtureRequest, brokers: Brokers, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Shared]:
    with rig(tmp_path_factory.mktemp("shared"), brokers.url(request.param), {}) as it:
        it.worker()
        it.worker()
        yield Shared(it, it.flower())


@pytest.fixture
def new_rig(brokers: Brokers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Rig]]:
    """Make a private shop, on Redis if no URL is given, without workers; keyword arguments are settings."""
    with ExitStack() as stack:

        def make(broker_url: str | None = None, **config: Any) -> Rig:
            directory = tmp_path_factory.mktemp("shop")
            return stack.enter_context(rig(directory, broker_url or brokers.url("redis"), config))

        yield make
