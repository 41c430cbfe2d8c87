"""Who publishes a row that is due in a moment: its scheduler, only where no dispatcher is sure to find it in time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from pydantic import BaseModel
from sqlalchemy.orm import Session

from confect_celery import Confect, Duration
from confect_celery.runtime import Dispatcher, Outbox
from confect_celery.settings import Settings
from confect_celery.store import Delivery
from confect_celery.testing import Harness

SECOND = Duration.seconds(1)


class Label(BaseModel):
    label: str


@pytest.fixture
def mark(confect: Confect) -> Any:
    @confect.group("t").internal_mutation
    def mark(args: Label) -> None: ...

    return mark


@pytest.fixture
def published(shop: Harness) -> Iterator[list[Delivery]]:
    out: list[Delivery] = []
    with shop.confect.redirected(publish=out.append):
        yield out


@pytest.fixture
def urgent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dispatchers may find too late what is due in a second."""
    monkeypatch.setattr(Settings, "found_within", SECOND)


def dispatcher_of(shop: Harness, settings: Settings) -> Dispatcher:
    store = shop.confect.store
    return Dispatcher(store, Outbox(store, shop, shop.clock), shop.clock, settings)


def handed_over(confect: Confect, id: str) -> tuple[int, Any]:
    """How often the row was handed over, and in how many seconds it needs attention."""
    table = confect.store.table
    with confect.store.database.autocommit() as connection:
        row = connection.execute(sa.select(table.c.deliveries, table.c.next_at).where(table.c.id == id)).one()
    return row.deliveries, (row.next_at - confect.clock.now()).total_seconds()


def test_what_is_due_in_a_second_is_left_to_dispatchers(shop: Harness, mark: Any, published: list[Delivery]) -> None:
    confect = shop.confect
    id = confect.scheduler.run_after(SECOND, mark, {"label": "x"})
    assert handed_over(confect, id) == (0, 1.0)
    claimed = dispatcher_of(shop, confect.settings).claim()
    assert [each.id for each in claimed] == [id] and published == []


def test_what_they_may_find_too_late_its_scheduler_publishes(
    shop: Harness, mark: Any, urgent: None, published: list[Delivery]
) -> None:
    confect = shop.confect
    id = confect.scheduler.run_after(SECOND, mark, {"label": "x"})
    assert [each.id for each in published] == [id]
    assert handed_over(confect, id) == (1, 32.0), "the horizon and the time for its message to be lost"
    assert confect.scheduler.reschedule(id, SECOND)
    assert [(each.id, each.attempt) for each in published] == [(id, 0), (id, 1)]
    confect.scheduler.run_after(SECOND * 1.1, mark, {"label": "later"})
    assert len(published) == 2


def test_a_commit_that_takes_long_leaves_no_time_to_be_found(
    shop: Harness, mark: Any, published: list[Delivery]
) -> None:
    confect = shop.confect
    with Session(confect.store.database.engine) as session:
        id = confect.scheduler.using(session).run_after(SECOND, mark, {"label": "x"})
        quick = confect.scheduler.using(session).run_after(SECOND * 1.5, mark, {"label": "y"})
        shop.clock.advance(Duration.millis(200))
        session.commit()
    assert [each.id for each in published] == [id]
    assert handed_over(confect, id) == (0, 0.8), "a dispatcher that finds it as well sends what starts nothing"
    assert handed_over(confect, quick) == (0, 1.3)


@pytest.mark.parametrize(
    ("given", "sleeps", "found"),
    [
        ({}, 0.8, 0.9),
        ({"poll_interval": 60}, 0.8, 0.9),
        ({"horizon": 0.4}, 0.16, 0.18),
        ({"poll_interval": 0.5}, 0.4, 0.45),
    ],
)
def test_a_dispatcher_looks_before_that(shop: Harness, given: dict[str, float], sleeps: float, found: float) -> None:
    settings = Settings(**given)
    assert settings.pause.total_seconds() == pytest.approx(sleeps)
    assert settings.found_within.total_seconds() == pytest.approx(found)
    assert 0 < dispatcher_of(shop, settings).tick() <= sleeps < found


def test_the_shortest_delay_is_found(shop: Harness) -> None:
    assert shop.confect.settings.found_within < shop.confect.settings.min_delay
