"""A shop with a real worker, and a producer who can write to its broker and means harm."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.integration.conftest import broker, broker_urls  # noqa: F401  # fixtures
from tests.integration.rig import Rig, rig
from tests.security.hostile import Hostile


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory, broker_urls: Iterator[str]) -> Iterator[Rig]:  # noqa: F811
    """A shop with one prefork worker; the tests write what they want to its broker."""
    with rig(tmp_path_factory.mktemp("security"), next(broker_urls), {}) as it:
        it.worker()
        yield it


@pytest.fixture
def hostile(shop: Rig) -> Iterator[Hostile]:
    """Who writes to the shop's broker."""
    with Hostile(shop.app.conf.broker_url) as it:
        yield it
