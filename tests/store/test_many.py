"""`run_many` of thousands: on PostgreSQL rows are made while the server takes those before them, and nobody sees it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa
from pydantic import BaseModel, field_serializer

from confect_celery import Confect, Duration, InvalidArguments, ScheduledFunction, StateKind
from confect_celery.testing import Harness

HOUR = Duration.hours(1)
COUNT = 2_500
postgresql = pytest.mark.parametrize("store", ["postgresql"], indirect=True)


class Number(BaseModel):
    n: int


class Told(BaseModel):
    """Somebody hears when its text is made."""

    n: int

    @field_serializer("n")
    def write(self, n: int) -> int:
        heard(n)
        return n


heard: Callable[[int], None] = print


@pytest.fixture
def functions(confect: Confect) -> tuple[Any, Any]:
    group = confect.group("many")

    @group.internal_action
    def count(args: Number) -> None: ...

    @group.internal_mutation(queue="told")
    def tell(args: Told) -> None: ...

    return count, tell


def telling(monkeypatch: pytest.MonkeyPatch, at: int, call: Callable[[], None]) -> None:
    """Has `call` called as the text of this number is made."""
    monkeypatch.setitem(globals(), "heard", lambda n: call() if n == at else None)


def count_of_rows(shop: Harness) -> int:
    table = shop.confect.store.table
    return shop.confect.store.database.reading(
        lambda c: c.execute(sa.select(sa.func.count()).select_from(table)).scalar_one()
    )


def in_order(shop: Harness) -> list[ScheduledFunction]:
    return sorted(shop.scheduled(), key=lambda row: row.id)


def copying(shop: Harness) -> list[tuple[int, str]]:
    """Pid and text of what other connections are sending."""
    text = (
        "SELECT pid, query FROM pg_stat_activity WHERE state = 'active' AND starts_with(query, 'COPY') "
        "AND datname = current_database()"
    )
    with shop.confect.store.database.engine.connect() as connection:
        return [(pid, query) for pid, query in connection.exec_driver_sql(text)]


def test_each_row_is_what_was_asked(shop: Harness, functions: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "heard", lambda n: None)
    times = [HOUR, HOUR * 2, shop.clock.now() + HOUR * 3]
    jobs = [(times[n % 3], functions[n % 2], {"n": n}) for n in range(COUNT)]
    ids = shop.confect.scheduler.run_many(jobs)
    now = shop.clock.now()
    rows = in_order(shop)
    assert [row.id for row in rows] == ids
    for n, row in enumerate(rows):
        when = (now + HOUR, now + HOUR * 2, times[2])[n % 3]
        assert (row.name, row.args) == (("internal/many/count", "internal/many/tell")[n % 2], {"n": n})
        assert (row.scheduled_time, row.next_at, row.creation_time) == (when, when, now)
        assert (row.state.kind, row.options) == (StateKind.PENDING, ({}, {"queue": "told"})[n % 2])


@pytest.mark.parametrize("wrong", [0, 999, 1_000, COUNT - 1])
def test_one_that_cannot_be_made_undoes_all(shop: Harness, functions: tuple[Any, Any], wrong: int) -> None:
    jobs = [(HOUR, functions[0], {"n": "no number" if n == wrong else n}) for n in range(COUNT)]
    with pytest.raises(InvalidArguments):
        shop.confect.scheduler.run_many(jobs)
    assert count_of_rows(shop) == 0
    jobs[wrong] = (HOUR, functions[0], {"n": wrong})
    assert len(set(shop.confect.scheduler.run_many(jobs))) == count_of_rows(shop) == COUNT


def test_in_a_callers_transaction_it_undoes_nothing_of_the_callers(shop: Harness, functions: tuple[Any, Any]) -> None:
    jobs = [(HOUR, functions[0], {"n": "no number" if n == 2_000 else n}) for n in range(COUNT)]
    with shop.confect.store.database.transaction() as transaction:
        joined = shop.confect.scheduler.using(transaction.connection)
        mine = joined.run_after(HOUR, functions[0], {"n": 1})
        with pytest.raises(InvalidArguments):
            joined.run_many(jobs)
        assert joined.get(mine) is not None, "its transaction goes on"
    assert [row.id for row in shop.scheduled()] == [mine]


@postgresql
def test_rows_are_made_while_the_server_takes_others(
    shop: Harness, functions: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, str]] = []
    telling(monkeypatch, 2_400, lambda: seen.extend(copying(shop)))
    shop.confect.scheduler.run_many([(HOUR, functions[1], {"n": n}) for n in range(COUNT)])
    assert len(seen) == 1 and count_of_rows(shop) == COUNT


@postgresql
@pytest.mark.parametrize("at", [1_000, 1_999, 2_400])
def test_a_connection_that_breaks_meanwhile(
    shop: Harness, functions: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    killed: list[int] = []

    def kill() -> None:
        for pid, _ in copying(shop):
            with shop.confect.store.database.engine.connect() as connection:
                connection.exec_driver_sql("SELECT pg_terminate_backend(%s, 5000)", (pid,))
            killed.append(pid)

    telling(monkeypatch, at, kill)
    ids = shop.confect.scheduler.run_many([(HOUR, functions[1], {"n": n}) for n in range(COUNT)])
    assert len(killed) == 1, "it was done again, and no text was made twice"
    rows = in_order(shop)
    assert [(row.id, row.args["n"]) for row in rows] == list(zip(ids, range(COUNT), strict=True))
