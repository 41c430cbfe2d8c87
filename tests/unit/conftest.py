"""A small shop for unit tests, on its own SQLite file and under the harness."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from celery import Celery

from confect_celery import Confect
from confect_celery.testing import Harness, harness


@pytest.fixture
def confect(tmp_path: Path) -> Iterator[Confect]:
    metadata = sa.MetaData()
    sa.Table("marks", metadata, sa.Column("id", sa.Integer, primary_key=True), sa.Column("label", sa.String(100)))
    app = Celery("unit", broker="memory://", set_as_current=False)
    app.conf.confect_database_url = f"sqlite:///{tmp_path}/unit.db"
    confect = Confect(app, schema=metadata)
    metadata.create_all(confect.store.database.engine)
    yield confect
    confect.store.database.dispose()


@pytest.fixture
def shop(confect: Confect) -> Iterator[Harness]:
    with harness(confect) as shop:
        yield shop


@pytest.fixture
def marks(confect: Confect) -> object:
    """Calling it tells the labels that were marked, sorted."""

    def labels() -> list[str]:
        with confect.reader() as db:
            return sorted(mark.label for mark in db.table("marks").collect())

    return labels
