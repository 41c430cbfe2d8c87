"""A job of the far future is a row and nothing else."""

from __future__ import annotations

import pytest

from confect_celery import DateTime, DelayOutOfRange, Duration
from confect_celery.timing import SettableClock
from tests.integration.rig import Rig
from tests.support.waiting import wait_for

FIVE_YEARS = Duration.days(5 * 366)
YEARS_OFF = Duration.days(4 * 366)


def test_costs_no_message_and_no_memory(shared: Rig) -> None:
    ids = shared.scheduler.run_many(
        [(YEARS_OFF + Duration.seconds(n), shared.shop.mark, {"label": "years off"}) for n in range(200)]
    )
    # When the dispatcher has found this one, it has looked past all the others.
    shared.end(shared.scheduler.run_after(Duration.seconds(3), shared.shop.mark, {"label": "meanwhile"}))

    assert shared.redis.llen("celery") == 0
    wait_for(lambda: shared.redis.hlen("unacked") == 0, within=5)  # Redis is told that it is done a moment later
    inspect = shared.app.control.inspect(timeout=5, limit=1)
    assert [*inspect.scheduled().values(), *inspect.reserved().values()] == [[], []]
    rows = shared.called("years off")
    assert sorted(row.id for row in rows) == sorted(ids)
    assert {(row.state.kind, row.attempt, row.next_at == row.scheduled_time) for row in rows} == {("pending", 0, True)}
    with shared.confect.writer() as db:
        for id in ids:
            db.table("_scheduled_functions").delete(id)
    assert {row.state.kind for row in shared.rows(ids)} == {"canceled"}


def test_five_years_by_the_clock(shared: Rig) -> None:
    now = DateTime.parse("2026-03-01T00:00:00Z")
    last, tick = DateTime.parse("2031-03-05T00:00:00Z"), Duration.millis(1)
    assert now + FIVE_YEARS == last
    args = {"label": "bounds"}
    with shared.confect.redirected(clock=SettableClock(now)), shared.confect.store.database.engine.connect() as there:
        scheduler = shared.confect.scheduler.using(there)  # rolled back: no row is left
        for fits in (last, now - FIVE_YEARS):
            assert scheduler.get(scheduler.run_at(fits, shared.shop.mark, args)).scheduled_time == fits
        assert scheduler.get(scheduler.run_after(FIVE_YEARS, shared.shop.mark, args)).scheduled_time == last
        for late in (last + tick, now - FIVE_YEARS - tick):
            with pytest.raises(DelayOutOfRange):
                scheduler.run_at(late, shared.shop.mark, args)
        with pytest.raises(DelayOutOfRange) as refused:
            scheduler.run_after(FIVE_YEARS + tick, shared.shop.mark, args)
        assert refused.value.maximum == "1830d"
    assert shared.called("bounds") == []
