"""Bad input at every door: typed outcomes only, nothing lost, no SQL error escapes.

Doors are messages (their headers, ids and attempts) at the gate and at the reconciler, arguments on their way into the
table and back, filters, and texts that claim to be times. `CONFECT_SEED` draws the same again, as in `test_guarantees`.
"""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from celery import Celery
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from confect_celery import Confect, DatabaseWriter, DateTime, Duration, StateKind
from confect_celery.errors import (
    ArgumentsTooLarge,
    ConfectError,
    InvalidArguments,
    InvalidFilter,
    SchedulingError,
    TimeError,
    UnknownField,
)
from confect_celery.runtime import Dropped, Failed, Reconciler, Succeeded
from confect_celery.runtime.messages import ATTEMPT_HEADER
from confect_celery.runtime.task import attempt_of
from confect_celery.store import NewRow, new_id
from confect_celery.testing import Harness, harness
from tests.support.databases import DATABASES, Databases

SECOND = Duration.seconds(1)
SEED = os.environ.get("CONFECT_SEED")

ANY_TEXT = st.text(st.characters(), max_size=20)
"""NUL and half surrogate pairs included."""
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=20)
NASTY = st.sampled_from(
    ["", "'", '"', "\\", "%", "_", ";--", "$", "$.a", "a.b", "a[0]", "\x00", "\ud800", "🦉", "İ", "ß", "a" * 300, "-1"]
)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | ANY_TEXT | NASTY
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=8,
)
ODD_JSON = st.recursive(
    SCALARS | st.binary(max_size=4) | st.datetimes() | st.uuids(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(SCALARS, inner, max_size=3),
    max_leaves=6,
)


def tries(count: int) -> Callable[[Any], Any]:
    def wrap(test: Any) -> Any:
        test = settings(
            max_examples=count,
            deadline=None,
            print_blob=True,
            suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
        )(test)
        return seed(int(SEED))(test) if SEED else test

    return wrap


class Free(BaseModel):
    value: Any = None


@pytest.fixture(scope="module", params=DATABASES)
def confect(
    request: pytest.FixtureRequest, databases: Databases, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Confect]:
    with databases.url(request.param, tmp_path_factory.mktemp("bad")) as url:
        app = Celery("bad_input", broker="memory://", set_as_current=False)
        app.conf.confect_database_url = url
        confect = Confect(app)
        confect.store.migrate()
        confect.group("t").internal_mutation(mutation)
        confect.group("t").internal_action(action)
        app.task(name="plain", shared=False)(plain)
        yield confect
        confect.store.database.dispose()


@pytest.fixture(scope="module")
def opened(confect: Confect) -> Iterator[Harness]:
    with harness(confect) as shop:
        yield shop


@pytest.fixture
def shop(opened: Harness) -> Harness:
    for row in opened.scheduled():  # left behind by a test that failed
        opened.confect.scheduler.cancel(row.id)
    return opened


RAN: list[Any] = []


def rows(shop: Harness) -> int:
    """How many there are."""
    with shop.confect.reader() as db:
        return db.table("_scheduled_functions").count()


def as_it_went(back: Any, went: Any) -> bool:
    """Equal; but jsonb keeps 1e23 as the decimal number that it is printed as, without telling that it was a float."""
    if isinstance(went, float) and isinstance(back, int):
        return float(back) == went
    if isinstance(went, list):
        return len(back) == len(went) and all(map(as_it_went, back, went))
    if isinstance(went, dict):
        return back.keys() == went.keys() and all(as_it_went(back[key], went[key]) for key in went)
    return type(back) is type(went) and bool(back == went)


def mutation(args: Free, db: DatabaseWriter) -> None:
    RAN.append(args.value)


def action(args: Free) -> None:
    RAN.append(args.value)


def plain(**_: Any) -> None: ...


# -- messages


@tries(300)
@given(
    st.dictionaries(SCALARS, SCALARS) | SCALARS | st.lists(SCALARS) | st.fixed_dictionaries({ATTEMPT_HEADER: SCALARS})
)
def test_headers_are_read_or_match_no_row(headers: Any) -> None:
    attempt = attempt_of(headers)
    assert type(attempt) is int
    if attempt != -1:
        assert headers[ATTEMPT_HEADER] == attempt


IDS = st.one_of(NASTY, ANY_TEXT, st.uuids().map(str))
ATTEMPTS = st.one_of(st.integers(-3, 3), st.sampled_from([2**31 - 1, 2**31, -(2**31) - 1, 2**63, 10**30]))


@tries(60)
@given(id=IDS, attempt=ATTEMPTS)
def test_the_gate_drops_what_no_row_stands_behind(shop: Harness, id: str, attempt: int) -> None:
    outcome = shop.confect.gate.run(id, attempt)
    assert isinstance(outcome, Dropped) and outcome.reason == "missing"


@tries(40)
@given(attempt=ATTEMPTS.filter(lambda n: n != 0))
def test_the_gate_drops_attempts_that_never_were(shop: Harness, attempt: int) -> None:
    id = shop.confect.scheduler.run_after(SECOND, shop.confect.refs.internal.t.mutation, {})
    assert shop.confect.gate.run(id, attempt) == Dropped("superseded" if attempt >= 0 else "missing")
    row = shop.confect.scheduler.get(id)
    assert row is not None and row.state.kind is StateKind.PENDING
    shop.confect.scheduler.cancel(id)


@tries(60)
@given(id=IDS, attempt=ATTEMPTS, name=IDS, limit=st.floats(0, 1e6))
def test_what_a_worker_tells_of_strange_messages_changes_nothing(
    shop: Harness, id: str, attempt: int, name: str, limit: float
) -> None:
    standing = shop.confect.scheduler.run_after(SECOND, shop.confect.refs.internal.t.mutation, {})
    before = shop.confect.scheduler.get(standing)
    reconciler = Reconciler(shop.confect.store, shop.clock, shop.confect.settings, lambda: [id])
    reconciler.worker_lost(id, attempt, name)
    reconciler.requeued(id, attempt, name)
    reconciler.succeeded(id, attempt)
    reconciler.timed_out(id, attempt, limit)
    reconciler.unknown(id, attempt, name)
    reconciler.revoked([id])
    reconciler.apply_told()
    reconciler.renew_leases()
    assert shop.confect.scheduler.get(standing) == before
    assert shop.confect.scheduler.get(id) is None and shop.confect.scheduler.cancel(id) is False
    assert shop.confect.scheduler.reschedule(id, SECOND) is False
    shop.confect.scheduler.cancel(standing)


@tries(40)
@given(text=ANY_TEXT | NASTY)
def test_whatever_a_worker_says_of_a_death_is_kept(shop: Harness, text: str) -> None:
    id = shop.confect.scheduler.run_after(SECOND, shop.confect.refs.internal.t.action, {})
    with shop.confect.store.database.transaction() as t:
        assert shop.confect.store.rows.start(t.connection, id, 0, shop.clock.now() + SECOND)
    reconciler = Reconciler(shop.confect.store, shop.clock, shop.confect.settings, lambda: [])
    reconciler.worker_lost(id, 0, text)
    reconciler.apply_told()
    row = shop.confect.scheduler.get(id)
    assert row is not None and row.state.error is not None and row.state.error.tag == "WorkerLost"


# -- arguments


@tries(60)
@given(value=JSON, kind=st.sampled_from(["mutation", "action"]))
def test_json_comes_back_from_the_table_as_it_went(shop: Harness, value: Any, kind: str) -> None:
    RAN.clear()
    function = getattr(shop.confect.refs.internal.t, kind)
    id = shop.confect.scheduler.run_after(SECOND, function, {"value": value})
    row = shop.confect.scheduler.get(id)
    assert row is not None and as_it_went(row.args, {"value": value})
    (ran,) = [row for row in shop.run_all() if row.id == id]
    assert ran.state.kind is StateKind.SUCCESS and as_it_went(RAN, [value])


@tries(60)
@given(value=ODD_JSON, kind=st.sampled_from(["mutation", "plain"]))
def test_anything_else_is_refused_before_a_row_exists_or_runs(shop: Harness, value: Any, kind: str) -> None:
    before = rows(shop)
    plain_task = shop.confect.app.tasks["plain"]
    function: Any = plain_task if kind == "plain" else shop.confect.refs.internal.t.mutation
    try:
        id = shop.confect.scheduler.run_after(SECOND, function, {"value": value})
    except (InvalidArguments, ArgumentsTooLarge):
        assert rows(shop) == before
        return
    assert rows(shop) == before + 1
    row = shop.confect.scheduler.get(id)
    assert row is not None
    if kind == "mutation":
        shop.advance(SECOND)
        assert isinstance(shop.confect.gate.run(id, 0), Succeeded)
    else:
        shop.confect.scheduler.cancel(id)


@tries(40)
@given(name=TEXT, args=JSON.filter(lambda args: args is not None))
def test_rows_that_fit_no_function_fail_and_hold_up_nobody(shop: Harness, name: str, args: Any) -> None:
    now = shop.clock.now()
    stranger = NewRow(new_id(now), name, "action", args, now, now, now)
    misfit = NewRow(new_id(now), "internal/t/mutation", "mutation", args, now, now, now)
    with shop.confect.store.database.transaction() as t:
        shop.confect.store.rows.insert(t.connection, [stranger, misfit], delivered_until={}, born=StateKind.PENDING)
    ended = {row.id: row.state for row in shop.run_due()}
    assert ended[stranger.id].error is not None and ended[stranger.id].error.tag == "UnknownFunction"
    assert ended[misfit.id].kind in (StateKind.SUCCESS, StateKind.FAILED)


# -- filters

FIELDS = st.one_of(
    st.sampled_from(["args", "args.value", "args.value.0.x", "state.kind", "state.error.tag", "name", "id", "attempt"]),
    st.sampled_from(["scheduled_time", "completed_time", "options.queue", "parent_id", "next_at", "kind"]),
    NASTY,
    ANY_TEXT,
    st.builds("args.{}".format, NASTY | ANY_TEXT),
    st.tuples(st.just("args"), st.integers(-3, 2**70) | NASTY | ANY_TEXT),
    SCALARS,
)
VALUES = st.one_of(
    SCALARS,
    st.binary(max_size=3),
    st.datetimes(timezones=st.just(dt.UTC)),
    st.datetimes(),
    st.decimals(),
    st.uuids(),
    st.lists(SCALARS, max_size=2),
    st.just(Duration.seconds(1)),
    st.just(DateTime.parse("2030-01-01T00:00:00Z")),
    st.just(object()),
)
OPERATORS = st.sampled_from(["eq", "neq", "lt", "lte", "gt", "gte", "in_"])


@tries(250)
@given(field=FIELDS, value=VALUES, operator=OPERATORS, negated=st.booleans(), by=FIELDS | st.none())
def test_filters_find_or_are_refused(
    shop: Harness, field: Any, value: Any, operator: str, negated: bool, by: Any
) -> None:
    def build(q: Any) -> Any:
        condition = getattr(q, operator)(q.field(field), [value] if operator == "in_" else value)
        return q.not_(condition) if negated else condition

    with shop.confect.reader() as db:
        try:
            query = db.table("_scheduled_functions").filter(build)
            (query if by is None else query.order("asc", by=by)).take(3)
        except (UnknownField, InvalidFilter, TimeError):
            return


@tries(40)
@given(value=JSON.filter(lambda value: value is None or isinstance(value, (bool, int, str))), other=TEXT)
def test_a_filter_by_an_argument_finds_its_row_and_no_other(shop: Harness, value: Any, other: str) -> None:
    scheduler, function = shop.confect.scheduler, shop.confect.refs.internal.t.mutation
    mine = scheduler.run_after(SECOND, function, {"value": value})
    scheduler.run_after(SECOND, function, {"value": {"else": other}})
    with shop.confect.reader() as db:
        found = (
            db.table("_scheduled_functions")
            .filter(lambda q: q.and_(q.eq(q.field("args.value"), value), q.eq(q.field("state.kind"), "pending")))
            .collect()
        )
    assert [row.id for row in found] == [mine]
    shop.run_all()


# -- times

TIMES = st.one_of(
    ANY_TEXT,
    NASTY,
    st.datetimes().map(str),
    st.datetimes(timezones=st.timezones()).map(lambda when: when.isoformat()),
    st.from_regex(r"[-+]?\d{1,5}-\d{1,2}-\d{1,2}[T ]\d{1,2}:\d{1,2}(:\d{1,2}(\.\d{1,9})?)?(Z|[+-]\d\d:?\d\d)?"),
    st.builds("2030-01-01T00:00:00+01:00[{}]".format, ANY_TEXT | st.sampled_from(["Europe/Paris", "../passwd", "."])),
)


@tries(400)
@given(TIMES)
def test_a_text_is_a_time_or_a_time_error(text: str) -> None:
    try:
        when = DateTime.parse(text)
    except TimeError:
        return
    assert DateTime.parse(str(when)) == when
    assert DateTime.from_epoch_millis(when.epoch_millis) <= when


NUMBERS = st.integers() | st.floats() | st.sampled_from([2**63, -(2**63), 1e308, float("nan"), float("inf")])


@tries(400)
@given(st.sampled_from(["micros", "millis", "seconds", "minutes", "hours", "days", "weeks"]), NUMBERS | SCALARS)
def test_a_duration_is_one_or_a_time_error(unit: str, value: Any) -> None:
    try:
        duration = getattr(Duration, unit)(value)
        when = DateTime.parse("2030-01-01T00:00:00Z") + duration
    except TimeError:
        return
    assert when - duration == DateTime.parse("2030-01-01T00:00:00Z")


@tries(120)
@given(delay=VALUES | st.timedeltas() | st.integers().map(lambda n: n), at=st.booleans(), again=st.booleans())
def test_a_strange_delay_writes_no_row(shop: Harness, delay: Any, at: bool, again: bool) -> None:
    scheduler, function = shop.confect.scheduler, shop.confect.refs.internal.t.mutation
    before = rows(shop)
    try:
        if again:
            scheduler.reschedule("no-such-row", delay)
            return
        id = (scheduler.run_at if at else scheduler.run_after)(delay, function, {})
    except (SchedulingError, TimeError):
        assert rows(shop) == before
        return
    scheduler.cancel(id)


def test_every_refusal_is_one_of_ours() -> None:
    """The tests above name the errors they take; all of them can be caught at once."""
    taken = (InvalidArguments, ArgumentsTooLarge, InvalidFilter, SchedulingError, TimeError, UnknownField)
    assert all(issubclass(error, ConfectError) for error in taken)
    assert Failed is not Succeeded
