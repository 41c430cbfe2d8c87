"""What the whole suite shares: private servers, started once a session when a test first needs them."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator

import pytest

from tests.support.brokers import Brokers
from tests.support.databases import Databases


def pytest_configure() -> None:
    # `timeout` and CI end a run with SIGTERM: it ends in order then, or the private servers would outlive it.
    with contextlib.suppress(ValueError):  # not on the main thread: somebody else's affair
        signal.signal(signal.SIGTERM, signal.default_int_handler)


@pytest.fixture(scope="session")
def databases() -> Iterator[Databases]:
    databases = Databases()
    yield databases
    databases.stop()


@pytest.fixture(scope="session")
def brokers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Brokers]:
    brokers = Brokers(lambda kind: tmp_path_factory.mktemp(kind))
    yield brokers
    brokers.close()
