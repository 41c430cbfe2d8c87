"""Crons on every database: who fires, how often, and what a change of code does."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from celery import Celery
from pydantic import BaseModel

from confect_celery import Confect, CronJob, CronJobs, DateTime, Duration, InvalidCron
from confect_celery.runtime import CronLoop
from confect_celery.testing.harness import Harness, harness
from tests.support.databases import DATABASES, Databases

HOUR = Duration.hours(1)
NOON = DateTime.parse("2030-01-01T12:00:00Z")


class Label(BaseModel):
    label: str


class Shop:
    """An app with crons, under the harness."""

    def __init__(self, url: str) -> None:
        self.confect = Confect(Celery("crons", set_as_current=False))
        self.confect.app.conf.confect_database_url = url
        self.ran: list[str] = []
        group = self.confect.group("t")

        @group.internal_action
        def act(args: Label) -> None:
            self.ran.append(args.label)

        @group.mutation
        def public(args: Label) -> None: ...

        self.act, self.public = act, public

    def add(self, name: str, spec: Any, **options: Any) -> None:
        self.confect.crons.add(CronJob(name, spec, self.act, {"label": name}, **options))


@pytest.fixture(params=DATABASES)
def shop(request: pytest.FixtureRequest, databases: Databases, tmp_path: Any) -> Iterator[Shop]:
    with databases.url(request.param, tmp_path) as url:
        shop = Shop(url)
        shop.confect.store.migrate()
        yield shop
        shop.confect.store.database.dispose()


@pytest.fixture
def run(shop: Shop) -> Iterator[Harness]:
    with harness(shop.confect, now=NOON) as it:
        yield it


def test_it_fires_when_it_is_due_and_not_before(shop: Shop, run: Harness) -> None:
    shop.add("hourly", "0 * * * *")
    shop.add("often", Duration.minutes(30))
    for _ in range(4):
        run.run_due()
        run.advance(Duration.minutes(30))
    run.run_due()
    assert sorted(shop.ran) == ["hourly"] * 2 + ["often"] * 4
    rows = run.scheduled(shop.act, state="success")
    assert [row.scheduled_time - NOON for row in rows if row.args == {"label": "hourly"}] == [HOUR, HOUR * 2]


def test_after_an_outage_it_runs_once_and_tells_what_was_missed(shop: Shop, run: Harness) -> None:
    shop.add("hourly", "0 * * * *")
    run.advance(Duration.hours(12) + Duration.minutes(10))
    run.run_due()
    assert shop.ran == ["hourly"]
    (state,) = shop.confect.cron_states()
    assert (state.missed, state.skipped, state.last_at, state.next_at) == (
        11,
        0,
        NOON + HOUR * 12,
        NOON + HOUR * 13,
    )
    assert (state.function, state.spec, state.last_state) == ("internal/t/act", "0 * * * * UTC", "success")


@pytest.mark.parametrize("overlap", [False, True])
def test_it_does_not_run_beside_itself_unless_asked(shop: Shop, run: Harness, overlap: bool) -> None:
    shop.add("hourly", "0 * * * *", overlap=overlap)
    loop = CronLoop(shop.confect)
    for _ in range(4):
        loop.fire_due()
        run.clock.advance(HOUR)
    assert len(run.scheduled(shop.act)) == (3 if overlap else 1)
    (state,) = shop.confect.cron_states()
    assert (state.skipped, state.missed) == (0 if overlap else 2, 0)
    run.run_due()
    assert len(shop.ran) == (4 if overlap else 1)


def test_of_many_dispatchers_one_fires(shop: Shop, run: Harness) -> None:
    for n in range(5):
        shop.add(f"cron {n}", "0 * * * *", overlap=True)
    loops = [CronLoop(shop.confect) for _ in range(4)]
    for hour in range(3):
        barrier = threading.Barrier(len(loops))

        def fire(loop: CronLoop, barrier: threading.Barrier = barrier) -> None:
            barrier.wait(10)
            with shop.confect.store.database.thread():
                loop.fire_due()

        with ThreadPoolExecutor(len(loops)) as threads:
            list(threads.map(fire, loops))
        assert len(run.scheduled(shop.act)) == 5 * hour
        run.clock.advance(HOUR)


def test_another_schedule_holds_from_now_on_and_fires_nothing_for_the_past(shop: Shop, run: Harness) -> None:
    shop.add("report", "0 * * * *")
    run.run_due()
    run.advance(HOUR)
    run.run_due()
    old = CronLoop(shop.confect)
    old.fire_due()
    newer = CronJobs().add(CronJob("report", "30 * * * *", shop.act, {"label": "new"}))
    older, shop.confect.crons = shop.confect.crons, newer
    new = CronLoop(shop.confect)
    new.fire_due()
    assert shop.confect.cron_states()[0].next_at == NOON + HOUR * 1.5

    # While the deploy rolls the older process leaves it alone, at its own time and at the other.
    for _ in range(2):
        run.clock.advance(Duration.minutes(30))
        shop.confect.crons = older
        old.fire_due()
        assert shop.confect.cron_states()[0].stale
        shop.confect.crons = newer
        new.fire_due()
    assert [row.args["label"] for row in run.scheduled(shop.act)] == ["new"]

    # The newer ones are gone for good: the older take it over again, with their own schedule.
    run.clock.advance(HOUR)
    shop.confect.crons = older
    old.fire_due()
    state = shop.confect.cron_states()[0]
    assert not state.stale and state.next_at == NOON + HOUR * 4 and state.spec == "0 * * * * UTC"


def test_a_cron_that_is_gone_from_the_code_stops(shop: Shop, run: Harness) -> None:
    shop.add("hourly", "0 * * * *")
    run.advance(HOUR)
    shop.confect.crons = CronJobs()
    run.run_due()
    assert shop.ran == [] and shop.confect.cron_states() == []


def test_one_crons_fault_is_not_the_others(shop: Shop, run: Harness) -> None:
    shop.confect.crons.add(CronJob("broken", "0 * * * *", shop.act, {"wrong": 1}))
    shop.add("sound", "0 * * * *")
    run.advance(HOUR)
    run.run_due()
    assert shop.ran == ["sound"]


@pytest.mark.parametrize(
    ("function", "args", "reason"),
    [
        ("act", {"wrong": 1}, "label"),
        ("public", {"label": "x"}, "public"),
        ("nothing", None, "no function"),
    ],
)
def test_start_up_refuses_what_cannot_run(shop: Shop, function: str, args: Any, reason: str) -> None:
    shop.confect.crons.add(CronJob("bad", "0 * * * *", getattr(shop, function, "nothing"), args))
    with pytest.raises(InvalidCron, match=reason):
        shop.confect.check()


def test_a_plain_task_may_be_a_cron(shop: Shop, run: Harness) -> None:
    @shop.confect.app.task(name="plain.clean", shared=False)
    def clean(days: int) -> None: ...

    shop.confect.crons.add(CronJob("clean", HOUR, clean, {"days": 7}))
    shop.confect.crons.add(CronJob("clean by signature", HOUR, clean.s(days=8).set(queue="slow")))
    shop.confect.check()
    run.advance(HOUR)
    CronLoop(shop.confect).fire_due()
    pending = sorted(run.scheduled(), key=lambda row: row.args["days"])
    assert [(row.kind, row.name, row.args) for row in pending] == [
        ("task", "plain.clean", {"days": 7}),
        ("task", "plain.clean", {"days": 8}),
    ]
    assert pending[1].options == {"queue": "slow"}
