"""A store of its own for each test: the one suite that every database runs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from confect_celery.store import Store
from tests.support.databases import DATABASES, Databases


@pytest.fixture(params=DATABASES)
def store(request: pytest.FixtureRequest, databases: Databases, tmp_path: Path) -> Iterator[Store]:
    with databases.url(request.param, tmp_path) as url:
        store = Store(url)
        if not store.database.dialect.creates_itself:
            with store.database.transaction() as t:
                store.create_table(t.connection)
        yield store
        store.database.dispose()
