"""A store of its own for each test: the one suite that every database runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from celery import Celery

from confect_celery import Confect
from confect_celery.store import Store
from confect_celery.testing import Harness, harness
from tests.support.databases import DATABASES, Databases


@pytest.fixture(params=DATABASES)
def store(request: pytest.FixtureRequest, databases: Databases, tmp_path: Path) -> Iterator[Store]:
    with databases.url(request.param, tmp_path) as url:
        store = Store(url)
        store.migrate()
        yield store
        store.database.dispose()


@pytest.fixture
def confect(store: Store) -> Iterator[Confect]:
    """A small shop on the store's database."""
    metadata = sa.MetaData()
    sa.Table("marks", metadata, sa.Column("id", sa.Integer, primary_key=True), sa.Column("label", sa.String(100)))
    app = Celery("store", broker="memory://", set_as_current=False)
    app.conf.confect_database_url = store.database.url.render_as_string(hide_password=False)
    confect = Confect(app, schema=metadata)
    metadata.create_all(confect.store.database.engine)
    yield confect
    confect.store.database.dispose()


@pytest.fixture
def shop(confect: Confect) -> Iterator[Harness]:
    with harness(confect) as shop:
        yield shop


@pytest.fixture
def marks(confect: Confect) -> Callable[[], list[str]]:
    """Calling it tells the labels that were marked, sorted."""

    def labels() -> list[str]:
        with confect.reader() as db:
            return sorted(mark.label for mark in db.table("marks").collect())

    return labels
