"""The real thing: an embedded broker for the session, and workers in processes of their own."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.integration.rig import Rig, rig
from tests.support.processes import Valkey


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    """One broker for all rigs: each has a database number of its own."""
    valkey = Valkey(tmp_path_factory.mktemp("broker"))
    valkey.start()
    yield valkey
    valkey.stop()


@pytest.fixture
def own_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    """A broker for a test that kills it."""
    valkey = Valkey(tmp_path_factory.mktemp("own-broker"))
    valkey.start()
    yield valkey
    valkey.end()


@pytest.fixture(scope="session")
def broker_urls(broker: Valkey) -> Iterator[str]:
    """Addresses on the session's broker that nobody uses yet."""
    return (f"redis://127.0.0.1:{broker.port}/{number}" for number in itertools.count(1))


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory, broker_urls: Iterator[str]) -> Iterator[Rig]:
    """A shop with one prefork worker, for tests that leave it as they found it."""
    with rig(tmp_path_factory.mktemp("shared"), next(broker_urls), {}) as it:
        it.worker()
        yield it


@pytest.fixture(scope="session")
def fragile(tmp_path_factory: pytest.TempPathFactory, broker_urls: Iterator[str]) -> Iterator[Rig]:
    """As `shared`, for tests that kill the worker's children."""
    with rig(tmp_path_factory.mktemp("fragile"), next(broker_urls), {"confect_redelivery": 4}) as it:
        it.worker()
        yield it


@pytest.fixture
def new_rig(tmp_path_factory: pytest.TempPathFactory, broker_urls: Iterator[str]) -> Iterator[Callable[..., Rig]]:
    """Make a private shop without workers; keyword arguments are settings."""
    with ExitStack() as stack:

        def make(broker_url: str | None = None, **config: Any) -> Rig:
            directory = tmp_path_factory.mktemp("shop")
            return stack.enter_context(rig(directory, broker_url or next(broker_urls), config))

        yield make
