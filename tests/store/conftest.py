"""A store of its own for each test: the one suite that every database runs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from confect_celery.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(os.environ.get("CONFECT_TEST_URL", f"sqlite:///{tmp_path}/store.db"))
    yield store
    store.database.dispose()
