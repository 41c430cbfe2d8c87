"""A store of its own for each test: the one suite that every database runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa
from celery import Celery

from confect_celery import Confect
from confect_celery.store import Store
from confect_celery.testing import Harness, harness
from tests.store.query_tables import Tables, borrow_tables, open_tables
from tests.support.databases import DATABASES, Databases


@contextmanager
def migrated(url: str) -> Iterator[Store]:
    """A store whose tables are made, for as long as the block."""
    store = Store(url)
    store.migrate()
    yield store
    store.database.dispose()


@pytest.fixture(params=DATABASES)
def store(request: pytest.FixtureRequest, databases: Databases, tmp_path: Path) -> Iterator[Store]:
    with databases.url(request.param, tmp_path) as url, migrated(url) as store:
        yield store


@pytest.fixture(params=DATABASES)
def db(request: pytest.FixtureRequest, databases: Databases) -> Iterator[Tables]:
    """The tables that the tests of `store.query` read and write, empty."""
    with borrow_tables(databases, request.param) as tables:
        yield tables


@pytest.fixture(params=DATABASES)
def own_db(request: pytest.FixtureRequest, databases: Databases, tmp_path: Path) -> Iterator[Tables]:
    """As `db`, for who changes the schema."""
    with open_tables(databases, request.param, tmp_path) as tables:
        yield tables


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
