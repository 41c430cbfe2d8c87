"""`scheduler.retry`: what failed or was canceled, as a new row."""

from __future__ import annotations

import pytest
import sqlalchemy as sa
from pydantic import BaseModel

from confect_celery import DatabaseWriter, Duration
from confect_celery.errors import DelayOutOfRange, InvalidArguments, UnknownFunction
from confect_celery.testing import Harness


class Label(BaseModel):
    label: str


@pytest.fixture
def flaky(shop: Harness) -> tuple[Harness, list[bool]]:
    fails = [True]

    @shop.confect.group("test").internal_mutation(queue="slow")
    def mark(args: Label, db: DatabaseWriter) -> None:
        if fails[0]:
            raise ValueError(args.label)
        db.table("marks").insert({"label": args.label})

    return shop, fails


def failed(shop: Harness) -> str:
    id = shop.confect.scheduler.run_after(Duration.seconds(1), shop.confect.refs.internal.test.mark, {"label": "x"})
    shop.advance(Duration.seconds(1))
    assert [row.state.kind for row in shop.run_due()] == ["failed"]
    return id


def test_a_failed_function_runs_again_as_a_new_row(flaky: tuple[Harness, list[bool]]) -> None:
    shop, fails = flaky
    old = failed(shop)
    fails[0] = False
    new = shop.confect.scheduler.retry(old)
    assert new is not None and new != old

    before, after = shop.confect.scheduler.get(old), shop.confect.scheduler.get(new)
    assert before is not None and before.state.kind == "failed"
    assert after is not None and (after.name, after.args, after.options) == (
        before.name,
        {"label": "x"},
        {"queue": "slow"},
    )
    assert shop.run_due() == []
    shop.advance(Duration.seconds(1))
    assert [(row.id, row.state.kind) for row in shop.run_due()] == [(new, "success")]


def test_it_may_be_put_off_within_the_bounds(flaky: tuple[Harness, list[bool]]) -> None:
    shop, _ = flaky
    old = failed(shop)
    at = shop.clock.now() + Duration.days(3)
    new = shop.confect.scheduler.retry(old, at)
    assert new is not None and shop.confect.scheduler.get(new).scheduled_time == at  # type: ignore[union-attr]
    for delay in (Duration.zero, Duration.days(9999)):
        with pytest.raises(DelayOutOfRange):
            shop.confect.scheduler.retry(old, delay)


def test_only_what_failed_or_was_canceled(flaky: tuple[Harness, list[bool]]) -> None:
    shop, _ = flaky
    scheduler = shop.confect.scheduler
    id = scheduler.run_after(Duration.hours(1), shop.confect.refs.internal.test.mark, {"label": "x"})
    assert scheduler.retry(id) is None
    assert scheduler.retry("0198") is None
    scheduler.cancel(id)
    assert scheduler.retry(id) is not None


def test_what_the_code_would_not_run_is_refused(flaky: tuple[Harness, list[bool]]) -> None:
    shop, _ = flaky
    store = shop.confect.store
    old = failed(shop)

    def change(**values: object) -> None:
        with store.database.transaction() as transaction:
            transaction.connection.execute(sa.update(store.table).where(store.table.c.id == old).values(values))

    change(args={"number": 1})
    with pytest.raises(InvalidArguments):
        shop.confect.scheduler.retry(old)
    change(name="internal/test/gone")
    with pytest.raises(UnknownFunction):
        shop.confect.scheduler.retry(old)
    assert shop.scheduled() == []


def test_it_joins_the_callers_transaction(flaky: tuple[Harness, list[bool]]) -> None:
    shop, _ = flaky
    old = failed(shop)
    with shop.confect.store.database.engine.connect() as connection, connection.begin() as transaction:
        assert shop.confect.scheduler.using(connection).retry(old)
        transaction.rollback()
    assert shop.scheduled() == []
