"""The scheduler: bounds, bad input, transactions, cancel, reschedule."""

from __future__ import annotations

import datetime as dt
import gc
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa
from pydantic import BaseModel
from sqlalchemy.orm import Session

from confect_celery import (
    ArgumentsTooLarge,
    CannotCancelItself,
    Confect,
    DatabaseWriter,
    DelayOutOfRange,
    Duration,
    InvalidArguments,
    InvalidTime,
    MutationRunner,
    NaiveDateTime,
    NotSchedulable,
    ScheduledFunctionId,
    Scheduler,
    StateKind,
    SystemTableReadOnly,
    TooManyScheduled,
    UnknownFunction,
)
from confect_celery.runtime import Dispatcher, Outbox
from confect_celery.testing import Harness

Labels = Callable[[], list[str]]
HOUR = Duration.hours(1)


class Label(BaseModel):
    label: str


class Count(BaseModel):
    count: int


@pytest.fixture
def mark(confect: Confect) -> Any:
    group = confect.group("t")

    @group.internal_mutation(queue="marks", priority=3, time_limit=dt.timedelta(seconds=7))
    def mark(args: Label, db: DatabaseWriter) -> None:
        db.table("marks").insert({"label": args.label})

    return mark


def test_the_row_says_all_that_was_asked(shop: Harness, mark: Any) -> None:
    id = shop.confect.scheduler.run_after(HOUR, mark, Label(label="x"))
    row = shop.confect.scheduler.get(id)
    assert row is not None
    now = shop.clock.now()
    assert (row.id, row.name, row.kind, row.args) == (id, "internal/t/mark", "mutation", {"label": "x"})
    assert (row.scheduled_time, row.creation_time, row.next_at) == (now + HOUR, now, now + HOUR)
    assert (row.state.kind, row.completed_time, row.attempt, row.parent_id) == (StateKind.PENDING, None, 0, None)
    assert row.options == {"queue": "marks", "priority": 3, "time_limit": 7.0}


@pytest.mark.parametrize(
    ("delay", "fine"),
    [
        (Duration.seconds(1), True),
        (dt.timedelta(seconds=1), True),
        (Duration.micros(999_999), False),
        (Duration.zero, False),
        (Duration.seconds(-5), False),
        (Duration.days(5 * 366), True),
        (Duration.days(5 * 366) + Duration.micros(1), False),
    ],
)
def test_the_bounds_of_a_delay(shop: Harness, mark: Any, delay: Duration, fine: bool) -> None:
    if fine:
        assert shop.confect.scheduler.run_after(delay, mark, {"label": "x"})
    else:
        with pytest.raises(DelayOutOfRange, match="between 1s and 1830d"):
            shop.confect.scheduler.run_after(delay, mark, {"label": "x"})
    assert len(shop.scheduled()) == fine


def test_the_bounds_of_a_time(shop: Harness, mark: Any) -> None:
    scheduler, now, far = shop.confect.scheduler, shop.clock.now(), Duration.days(5 * 366)
    for when in (now - far, now + far):
        scheduler.run_at(when, mark, {"label": "x"})
    for when in (now - far - Duration.micros(1), now + far + Duration.micros(1)):
        with pytest.raises(DelayOutOfRange):
            scheduler.run_at(when, mark, {"label": "x"})
    past, _ = shop.scheduled()
    assert past.scheduled_time == now - far, "the time is kept as asked"
    assert past.next_at is not None and past.next_at > now


def test_a_past_time_is_due_after_the_minimum(shop: Harness, mark: Any, marks: Labels) -> None:
    shop.confect.scheduler.run_at(shop.clock.now() - HOUR, mark, {"label": "late"})
    shop.advance(Duration.millis(999))
    assert shop.run_due() == [] and marks() == []
    shop.advance(Duration.millis(1))
    assert len(shop.run_due()) == 1 and marks() == ["late"]


@pytest.mark.parametrize("delay", [5, 5.0, "PT5S", None, True])
def test_a_bare_number_is_no_delay(shop: Harness, mark: Any, delay: Any) -> None:
    with pytest.raises(InvalidTime):
        shop.confect.scheduler.run_after(delay, mark, {"label": "x"})
    with pytest.raises(TypeError):
        shop.confect.scheduler.run_after(delay, mark, {"label": "x"})


def test_a_naive_datetime_is_no_time(shop: Harness, mark: Any) -> None:
    with pytest.raises(NaiveDateTime):
        shop.confect.scheduler.run_at(dt.datetime(2030, 1, 1), mark, {"label": "x"})  # noqa: DTZ001
    with pytest.raises(InvalidTime):
        shop.confect.scheduler.run_at("2030-01-01T00:00:00Z", mark, {"label": "x"})  # type: ignore[call-overload]


def test_public_functions_and_queries_are_not_scheduled(shop: Harness) -> None:
    group = shop.confect.group("u")

    @group.mutation
    def register() -> None: ...

    @group.query
    def listing() -> None: ...

    @group.internal_query
    def inner() -> None: ...

    for function in (register, listing, inner, shop.confect.refs.public.u.register):
        with pytest.raises(NotSchedulable) as caught:
            shop.confect.scheduler.run_after(HOUR, function)  # type: ignore[call-overload]
        assert "internal_" in caught.value.alternative
    with pytest.raises(NotSchedulable):
        shop.confect.scheduler.run_after(HOUR, print)  # type: ignore[call-overload]
    assert shop.scheduled(state=None) == []


def test_an_unknown_function_is_told_with_the_one_that_was_meant(shop: Harness, mark: Any) -> None:
    with pytest.raises(UnknownFunction, match="Did you mean 'internal/t/mark'"):
        shop.confect.scheduler.run_after(HOUR, shop.confect.refs.internal.t.marc, {"label": "x"})


@pytest.mark.parametrize("args", [None, {}, {"lable": "x"}, {"label": 3}, {"label": "\x00"}, {"label": "\ud800"}, 7])
def test_arguments_that_do_not_fit(shop: Harness, mark: Any, args: Any) -> None:
    with pytest.raises(InvalidArguments):
        shop.confect.scheduler.run_after(HOUR, mark, args)
    with pytest.raises(InvalidArguments):
        shop.confect.scheduler.run_after(HOUR, mark, Count(count=1))
    assert shop.scheduled(state=None) == []


def test_arguments_that_are_too_large(shop: Harness, mark: Any) -> None:
    room = 2**20 - len('{"label": ""}')
    shop.confect.scheduler.run_after(HOUR, mark, {"label": "x" * room})
    with pytest.raises(ArgumentsTooLarge) as caught:
        shop.confect.scheduler.run_after(HOUR, mark, {"label": "x" * (room + 1)})
    assert (caught.value.size, caught.value.limit) == (2**20 + 1, 2**20)


def test_run_many_is_all_or_nothing(shop: Harness, mark: Any) -> None:
    jobs: list[Any] = [(HOUR, mark, {"label": "a"}), (shop.clock.now() + HOUR * 2, mark, {"label": "b"})]
    ids = shop.confect.scheduler.run_many(jobs)
    assert [row.id for row in shop.scheduled()] == ids
    with pytest.raises(InvalidArguments):
        shop.confect.scheduler.run_many([*jobs, (HOUR, mark, {})])
    assert len(shop.scheduled()) == 2
    assert shop.confect.scheduler.run_many([]) == []


def test_one_mutation_schedules_a_thousand_at_most_nested_ones_included(shop: Harness, mark: Any) -> None:
    group = shop.confect.group("many")

    @group.internal_mutation
    def inner(args: Count, scheduler: Scheduler) -> None:
        for _ in range(args.count):
            scheduler.run_after(HOUR, mark, {"label": "x"})

    @group.mutation
    def outer(args: Count, run_mutation: MutationRunner) -> None:
        run_mutation(inner, Count(count=500))
        run_mutation(inner, args)

    with pytest.raises(TooManyScheduled):
        shop.confect.run_mutation(outer, Count(count=501))
    assert shop.scheduled() == []
    shop.confect.run_mutation(outer, Count(count=500))
    assert len(shop.scheduled()) == 1000


def test_cancel_tells_who_did_it(shop: Harness, mark: Any, marks: Labels) -> None:
    id = shop.confect.scheduler.run_after(HOUR, mark, {"label": "x"})
    assert shop.confect.scheduler.cancel(id) is True
    assert shop.confect.scheduler.cancel(id) is False
    assert shop.confect.scheduler.cancel("no-such-id") is False
    assert shop.run_all() == [] and marks() == []
    done = shop.confect.scheduler.run_after(HOUR, mark, {"label": "x"})
    shop.run_all()
    assert shop.confect.scheduler.cancel(done) is False


def test_deleting_from_the_table_cancels_and_writing_to_it_is_refused(shop: Harness, mark: Any) -> None:
    id = shop.confect.scheduler.run_after(HOUR, mark, {"label": "x"})
    with shop.confect.writer() as db:
        table = db.table("_scheduled_functions")
        for attempt in (lambda: table.insert({}), lambda: table.patch(id, {}), lambda: table.replace(id, {})):
            with pytest.raises(SystemTableReadOnly):
                attempt()
        table.delete(id)
        table.delete("no-such-id")
    row = shop.confect.scheduler.get(id)
    assert row is not None and row.state.kind is StateKind.CANCELED


def test_a_mutation_cannot_cancel_or_move_itself(shop: Harness) -> None:
    group = shop.confect.group("self")
    seen: list[str] = []

    @group.internal_mutation
    def suicidal(db: DatabaseWriter, scheduler: Scheduler, me: ScheduledFunctionId | None) -> None:
        assert me is not None
        for attempt in (
            lambda: scheduler.cancel(me),
            lambda: scheduler.reschedule(me, HOUR),
            lambda: db.table("_scheduled_functions").delete(me),
        ):
            with pytest.raises(CannotCancelItself):
                attempt()
            seen.append(me)

    id = shop.confect.scheduler.run_after(HOUR, suicidal)
    (row,) = shop.run_all()
    assert row.state.kind is StateKind.SUCCESS and seen == [id] * 3


def test_reschedule_earlier_and_later(shop: Harness, mark: Any, marks: Labels) -> None:
    scheduler = shop.confect.scheduler
    sooner = scheduler.run_after(HOUR, mark, {"label": "sooner"})
    later = scheduler.run_after(HOUR, mark, {"label": "later"})
    assert scheduler.reschedule(sooner, Duration.minutes(10))
    assert scheduler.reschedule(later, shop.clock.now() + HOUR * 5)
    shop.advance(Duration.minutes(10))
    assert [row.id for row in shop.run_due()] == [sooner]
    shop.advance(HOUR * 4)
    assert shop.run_due() == []
    shop.advance(HOUR)
    assert [row.id for row in shop.run_due()] == [later] and marks() == ["later", "sooner"]
    assert scheduler.reschedule(later, HOUR) is False, "it has ended"
    assert scheduler.reschedule("no-such-id", HOUR) is False
    with pytest.raises(DelayOutOfRange):
        scheduler.reschedule(later, Duration.millis(1))


def test_a_message_that_is_out_starts_nothing_after_a_reschedule(shop: Harness, mark: Any, marks: Labels) -> None:
    id = shop.confect.scheduler.run_after(Duration.seconds(1), mark, {"label": "x"})
    store, clock = shop.confect.store, shop.clock
    (delivery,) = Dispatcher(store, Outbox(store, shop, clock), clock, shop.confect.settings).claim()
    shop.publish(delivery)
    assert shop.confect.scheduler.reschedule(id, HOUR)
    shop.advance(Duration.seconds(1))
    assert shop.run_due() == [] and marks() == []
    shop.advance(HOUR)
    assert len(shop.run_due()) == 1 and marks() == ["x"]


def test_using_a_transaction_of_the_callers(shop: Harness, mark: Any, marks: Labels) -> None:
    confect, engine = shop.confect, shop.confect.store.database.engine
    with engine.connect() as connection:
        confect.scheduler.using(connection).run_after(HOUR, mark, {"label": "rolled back"})
        connection.rollback()
        scheduler = confect.scheduler.using(connection)
        id = scheduler.run_after(HOUR, mark, {"label": "committed"})
        assert scheduler.get(id) is not None
        connection.commit()
    assert [row.args["label"] for row in shop.scheduled()] == ["committed"]
    with Session(engine) as session:
        assert confect.scheduler.using(session).cancel(id) is True
        session.rollback()
        with session.begin_nested():
            confect.scheduler.using(session).run_after(Duration.seconds(1), mark, {"label": "near"})
        with pytest.raises(ZeroDivisionError), session.begin_nested():
            confect.scheduler.using(session).run_after(HOUR, mark, {"label": "savepoint"})
            _ = 1 / 0
        session.commit()
    shop.advance(Duration.seconds(1))
    assert [row.args["label"] for row in shop.run_due()] == ["near"]
    assert [row.args["label"] for row in shop.scheduled()] == ["committed"]


def test_a_move_that_is_undone_with_its_savepoint_publishes_nothing(shop: Harness, mark: Any) -> None:
    """Its message would be for the attempt that the next, real move gives the row, and so start it before its time."""
    confect, published = shop.confect, []
    id = confect.scheduler.run_after(HOUR, mark, {"label": "x"})
    with (
        confect.redirected(publish=published.append),
        Session(confect.store.database.engine) as session,
    ):
        scheduler = confect.scheduler.using(session)
        with session.begin_nested() as savepoint:
            assert scheduler.reschedule(id, Duration.seconds(1)) is True
            savepoint.rollback()
        assert scheduler.reschedule(id, HOUR * 2) is True
        session.commit()
    assert published == []


def test_using_a_drivers_own_connection(shop: Harness, mark: Any, marks: Labels) -> None:
    confect, engine = shop.confect, shop.confect.store.database.engine
    raw = engine.raw_connection()
    dbapi = raw.driver_connection
    assert dbapi is not None
    scheduler = confect.scheduler.using(dbapi)
    try:
        if engine.dialect.driver != "psycopg":
            with pytest.raises(TypeError, match="SQLAlchemy Connection or Session"):
                scheduler.run_after(HOUR, mark, {"label": "x"})
            return
        for end in (dbapi.rollback, dbapi.commit):
            cursor = dbapi.cursor()
            cursor.execute("INSERT INTO marks (label) VALUES ('by hand')")
            with dbapi.transaction():  # a savepoint of psycopg's
                id = scheduler.run_after(HOUR, mark, {"label": f"{end.__name__} ü"})
            assert scheduler.get(id) is not None and confect.scheduler.get(id) is None
            gc.collect()
            end()
        assert [row.args["label"] for row in shop.scheduled()] == ["commit ü"] and marks() == ["by hand"]
        assert scheduler.cancel(id) is True
        dbapi.rollback()
        assert len(shop.scheduled()) == 1
        dbapi.autocommit = True
        with pytest.raises(TypeError, match="autocommit"):
            scheduler.cancel(id)
        dbapi.autocommit = False
    finally:
        raw.close()


@pytest.mark.parametrize("id", ["", "x", "a" * 4000, "\0", "\ud800", "a\udfff", "🦉"], ids=ascii)
def test_a_text_that_is_no_rows_id(shop: Harness, mark: Any, id: str) -> None:
    kept, scheduler = shop.confect.scheduler.run_after(HOUR, mark, {"label": "x"}), shop.confect.scheduler
    assert scheduler.get(id) is None
    assert (scheduler.cancel(id), scheduler.reschedule(id, HOUR), scheduler.retry(id)) == (False, False, None)
    assert [row.id for row in shop.scheduled()] == [kept]


def test_an_id_may_be_of_the_callers_own(shop: Harness, mark: Any, marks: Labels) -> None:
    id = shop.confect.app.send_task("internal/t/mark", kwargs={"label": "mine"}, task_id="order 7 ü").id
    assert id == "order 7 ü" and [row.id for row in shop.run_due()] == [id] and marks() == ["mine"]


@pytest.mark.parametrize("store", ["sqlite"], indirect=True)
def test_run_many_leaves_little_for_the_garbage_collector(shop: Harness, mark: Any) -> None:
    """One look of its at all that a process has takes as long as five thousand rows, and it comes the sooner the more
    objects are made that it looks at."""
    jobs = [(HOUR, mark, {"label": str(number)}) for number in range(7_000)]
    gc.collect()
    looks: list[int] = []

    def note(phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            looks.append(info["generation"])

    gc.callbacks.append(note)
    try:
        shop.confect.scheduler.run_many(jobs)
    finally:
        gc.callbacks.remove(note)
    assert len(looks) * gc.get_threshold()[0] < 1.7 * len(jobs), "a row, and not much besides"


def test_run_many_takes_the_same_budget_inside_a_mutation(shop: Harness, mark: Any) -> None:
    group = shop.confect.group("bulk")

    @group.mutation
    def bulk(scheduler: Scheduler, connection: sa.Connection) -> int:
        scheduler.run_many([(HOUR, mark, {"label": "x"})] * 1001)
        return 0

    with pytest.raises(TooManyScheduled):
        shop.confect.run_mutation(bulk)
    assert shop.scheduled() == []
