"""The database's clock as a process knows it."""

from __future__ import annotations

import datetime as dt
import time
from typing import Any

import pytest
import sqlalchemy as sa

from confect_celery import DateTime
from confect_celery.store import Store
from confect_celery.store.clock import DatabaseClock

SLOW_SECONDS = 0.05


@pytest.mark.parametrize("store", ["postgresql", "mariadb"], indirect=True)
@pytest.mark.parametrize("way", ["before_cursor_execute", "after_cursor_execute"])
def test_it_is_never_ahead_whichever_way_was_slow(store: Store, way: str) -> None:
    with store.database.autocommit() as connection:
        _theirs(store, connection)  # what a first statement takes is not of the clock

    def slowly(*_: Any) -> None:
        time.sleep(SLOW_SECONDS)

    clock = DatabaseClock(store.database)
    sa.event.listen(store.database.engine, way, slowly)
    clock.now()
    sa.event.remove(store.database.engine, way, slowly)
    with store.database.autocommit() as connection:
        before = _theirs(store, connection)
        known = clock.now()
        after = _theirs(store, connection)
    assert known <= after
    assert (before - known).total_seconds() < 2 * SLOW_SECONDS, "nor behind by more than it took to ask"


@pytest.mark.parametrize("store", ["postgresql"], indirect=True)
def test_a_surer_answer_counts_and_one_that_is_less_sure_only_where_it_tells_something_new(store: Store) -> None:
    """By turns a quick answer, and slow ones that agree with it."""
    clock = DatabaseClock(store.database)

    def slowly(*_: Any) -> None:
        time.sleep(SLOW_SECONDS)

    sa.event.listen(store.database.engine, "after_cursor_execute", slowly)
    clock.now()
    assert clock._answer is not None and clock._answer.unsure >= SLOW_SECONDS
    sa.event.remove(store.database.engine, "after_cursor_execute", slowly)
    clock._ask_at = float("-inf")  # half a minute later
    clock.now()
    sure = clock._answer
    assert sure.unsure < SLOW_SECONDS
    sa.event.listen(store.database.engine, "after_cursor_execute", slowly)
    clock._ask_at = float("-inf")
    clock.now()
    assert clock._answer is sure
    clock._answer = type(sure)(sure.micros + 5_000_000, sure.at, sure.unsure)  # somebody set the database's clock back
    clock._ask_at = float("-inf")
    clock.now()
    sa.event.remove(store.database.engine, "after_cursor_execute", slowly)
    with store.database.autocommit() as connection:
        assert clock.now() <= _theirs(store, connection)


def _theirs(store: Store, connection: sa.Connection) -> DateTime:
    expression = store.database.dialect.time
    assert expression is not None
    theirs: dt.datetime = connection.execute(sa.select(expression)).scalar_one()
    return DateTime.of(theirs if theirs.tzinfo else theirs.replace(tzinfo=dt.UTC))
