"""Rows of a stream come to a child a moment before their time, which it waits for.

The clock only goes on while somebody sleeps: what runs does so at the very time that it should.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from celery import Celery, signals
from pydantic import BaseModel

from confect_celery import Confect, Duration
from confect_celery.runtime import CeleryTransport, batch_run, punctual, sharing
from confect_celery.runtime.batch_run import BatchRun
from confect_celery.runtime.batches import BATCH_HEADER
from confect_celery.runtime.messages import task_name
from confect_celery.runtime.plain import PlainTasks
from confect_celery.store import Store
from confect_celery.store.clock import DatabaseClock
from confect_celery.timing import SettableClock

STARTED = pytest.mark.parametrize("kind", ["action", "task"])
POSTGRESQL = pytest.mark.parametrize("store", ["postgresql"], indirect=True)
MILLIS = [3, 5, 5, 9, 12, 20]
"""When the rows are due."""


class Number(BaseModel):
    n: int


class Sleeper:
    """A module's `time`: who sleeps moves the shop's clock."""

    def __init__(self, clock: SettableClock) -> None:
        self.clock = clock
        self.meanwhile: list[Callable[[], object]] = []

    def monotonic(self) -> float:
        return self.clock.now().epoch_micros / 1_000_000

    def sleep(self, seconds: float) -> None:
        self.clock.advance(Duration.seconds(seconds))
        now, self.meanwhile = self.meanwhile, []
        for each in now:
            each()


class Shop:
    """Functions that note when they run, in milliseconds since the batch came."""

    def __init__(self, confect: Confect, time: Sleeper) -> None:
        self.confect = confect
        self.time = time
        self.start = time.clock.now()
        self.ran: dict[int, float] = {}
        self.looks: dict[int, Callable[[], object]] = {}
        group = confect.group("t")

        @group.internal_action
        def act(args: Number) -> None:
            self._run(args.n)

        @group.internal_mutation
        def change(args: Number) -> None:
            self._run(args.n)

        @confect.app.task(name="plain", shared=False)
        def plain(n: int) -> None:
            self._run(n)

        self.functions: dict[str, Any] = {"action": act, "mutation": change, "task": plain}
        for name in (act.name, change.name, "plain"):
            for _ in range(3):
                confect.brevity.ran(name, 0.0)

    def now(self) -> float:
        return round((self.time.clock.now() - self.start).total_seconds() * 1000, 3)

    def _run(self, n: int) -> None:
        self.ran[n] = self.now()
        self.looks.pop(n, lambda: None)()

    def schedule(self, kinds: Sequence[str], millis: Sequence[float]) -> list[Any]:
        return self.confect.scheduler.run_many(
            [
                (self.start + Duration.millis(due), self.functions[kind], {"n": n})
                for n, (kind, due) in enumerate(zip(kinds, millis, strict=True))
            ]
        )

    def rows(self, ids: Sequence[Any]) -> list[Any]:
        with self.confect.reader() as db:
            return [db.table("_scheduled_functions").get(id) for id in ids]

    def deliver(self, ids: Sequence[Any]) -> None:
        header = [[str(row.id), row.attempt, task_name(row.name, row.options)] for row in self.rows(ids)]
        request = SimpleNamespace(id="batch", hostname="here", delivery_info={}, **{BATCH_HEADER: header})
        BatchRun(self.confect, request, None, CeleryTransport(self.confect.app, self.confect.settings)).run()


@pytest.fixture
def shop(store: Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    clock = SettableClock(DatabaseClock(store.database).now())
    time = Sleeper(clock)
    monkeypatch.setattr(punctual, "time", time)
    monkeypatch.setattr(batch_run, "LONGEST_SECONDS", 60.0)
    monkeypatch.setattr(sharing, "_LONGEST_SECONDS", 60.0)
    app = Celery("early", broker="memory://", set_as_current=False)
    app.conf.update(confect_database_url=store.database.url.render_as_string(hide_password=False), confect_min_delay=0)
    confect = Confect(app)
    with confect.redirected(clock=clock, publish=lambda _: None):
        tasks = PlainTasks(confect)
        shop = Shop(confect, time)
        tasks.install()
        yield shop
        signals.task_postrun.disconnect(tasks._ended)
        confect.store.database.dispose()
    app.close()


@STARTED
def test_each_starts_at_its_own_time(shop: Shop, kind: str) -> None:
    ids = shop.schedule([kind] * 6, MILLIS)
    began: list[float] = []
    note = lambda **_: began.append(shop.now())  # noqa: E731
    signals.task_prerun.connect(note)
    try:
        shop.deliver(ids)
    finally:
        signals.task_prerun.disconnect(note)
    assert list(shop.ran.values()) == MILLIS
    assert began == MILLIS, "the wait is none of the task's own time"
    assert {row.state.kind.value for row in shop.rows(ids)} == {"success"}


@POSTGRESQL
@STARTED
def test_they_are_held_before_their_time(shop: Shop, kind: str) -> None:
    ids = shop.schedule([kind] * 6, MILLIS)
    seen: list[list[tuple[float, str, int]]] = []
    shop.time.meanwhile = [
        lambda: seen.append([(shop.now(), row.state.kind.value, row.deliveries) for row in shop.rows(ids)])
    ]
    shop.deliver(ids)
    assert seen == [[(MILLIS[0], "pending", -1)] * 6], "what is left at its time does not wait for the disk"


@STARTED
def test_an_end_waits_for_the_next_start_only_where_that_is_near(shop: Shop, kind: str) -> None:
    ids = shop.schedule([kind] * 3, [2, 6, 18])
    states: list[list[str]] = []

    def slept() -> None:
        states.append([row.state.kind.value for row in shop.rows(ids)])
        shop.time.meanwhile = [slept]

    slept()
    shop.deliver(ids)
    none_yet = ["pending"] * 3
    assert states == [none_yet, none_yet, ["inProgress", "pending", "pending"], ["success", "success", "pending"]]


def test_mutations_that_share_a_transaction_wait_for_the_last_of_them(shop: Shop) -> None:
    shares = shop.confect.store.database.dialect.shares
    ids = shop.schedule(["mutation"] * 6, MILLIS)
    shop.deliver(ids)
    assert list(shop.ran.values()) == ([MILLIS[-1]] * 6 if shares else MILLIS)
    assert {row.state.kind.value for row in shop.rows(ids)} == {"success"}


def test_kinds_that_mix_wait_each_in_its_way(shop: Shop) -> None:
    shares = shop.confect.store.database.dialect.shares
    ids = shop.schedule(["action", "mutation", "mutation", "task", "action", "mutation"], [3, 4, 6, 9, 12, 20])
    shop.deliver(ids)
    assert list(shop.ran.values()) == [3, *([6, 6] if shares else [4, 6]), 9, 12, 20]
    assert {row.state.kind.value for row in shop.rows(ids)} == {"success"}


@pytest.mark.parametrize("kind", ["action", "mutation", "task"])
def test_nobody_waits_for_what_is_far_off(shop: Shop, kind: str) -> None:
    """What only a wrong clock or a strange message brings so early starts at its time all the same, if that is near."""
    ids = shop.schedule([kind] * 4, [3, 4, 900, 60_000])
    shop.deliver(ids)
    shared = kind == "mutation" and shop.confect.store.database.dialect.shares
    assert list(shop.ran.values()) == [4 if shared else 3, 4, 900]
    assert [row.state.kind.value for row in shop.rows(ids)] == ["success"] * 3 + ["pending"]
    last = shop.rows(ids)[3]
    assert (last.attempt, last.deliveries) == (0, 0), "and what has not begun is as it was"


@pytest.mark.parametrize("kind", ["action", "mutation", "task"])
def test_what_is_canceled_while_a_child_waits_for_its_time_never_starts(shop: Shop, kind: str) -> None:
    ids = shop.schedule([kind] * 6, MILLIS)
    shop.time.meanwhile = [lambda: shop.confect.scheduler.cancel(ids[0]), lambda: shop.confect.scheduler.cancel(ids[4])]
    shop.deliver(ids)
    assert sorted(shop.ran) == [1, 2, 3, 5]
    assert [row.state.kind.value for row in shop.rows(ids)].count("canceled") == 2


@STARTED
def test_what_is_moved_while_a_child_waits_starts_at_its_new_time_only(shop: Shop, kind: str) -> None:
    ids = shop.schedule([kind] * 6, MILLIS)
    later = shop.start + Duration.seconds(5)
    shop.time.meanwhile = [lambda: shop.confect.scheduler.reschedule(ids[3], later)]
    shop.deliver(ids)
    assert sorted(shop.ran) == [0, 1, 2, 4, 5]
    moved = shop.rows(ids)[3]
    assert moved.state.kind.value == "pending" and moved.scheduled_time == later
