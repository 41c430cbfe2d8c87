"""Brief actions and plain tasks of a batch are held together on PostgreSQL; whatever is done to one of them meanwhile,
each starts at most once, and its row tells the truth."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import sqlalchemy as sa
from celery.app.trace import trace_task
from sqlalchemy.sql.compiler import SQLCompiler

from confect_celery import DateTime, Duration, StateKind
from confect_celery.runtime import batch_run
from confect_celery.runtime.messages import ATTEMPT_HEADER
from confect_celery.runtime.warm_up import _get_ready
from confect_celery.store import HELD_FOR, Delivery, Statements, Store
from tests.support.holding import LATER, Refused, Shop
from tests.support.ticks import Ticks

pytestmark = pytest.mark.parametrize("store", ["postgresql"], indirect=True)

KINDS = pytest.mark.parametrize("kind", ["action", "task"])


@pytest.fixture
def shop(store: Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    monkeypatch.setattr(batch_run, "LONGEST_SECONDS", 60.0)  # a loaded machine must not come there
    shop = Shop(store.database.url.render_as_string(hide_password=False))
    shop.wait_until_all_is_kept()
    yield shop
    shop.close()


def once_each(shop: Shop, count: int, *, but: Sequence[int] = ()) -> None:
    assert sorted(shop.ran) == [n for n in range(count) if n not in but]


@KINDS
def test_they_are_held_and_each_begins_and_ends(shop: Shop, kind: str) -> None:
    ids = shop.schedule(*[kind] * 21)
    while_it_ran: list[list[tuple[str, int, int]]] = []
    seen = [*range(3), 20]
    look = lambda: while_it_ran.append(  # noqa: E731
        [(row.state.kind.value, row.attempt, row.deliveries) for row in shop.rows([ids[n] for n in seen])]
    )
    shop.doings[1] = look
    assert shop.deliver(ids) == 21

    assert shop.ran == list(range(21))
    # The end of the first is on its row, the second runs, the third is held, and the last is not held yet: 17 at once.
    began = [("success", 2, 1), ("inProgress", 2, 1), ("pending", 1, -1)]
    assert [row[:3] for row in while_it_ran] == [began] and while_it_ran[0][3][:2] == ("pending", 0)
    rows = shop.rows(ids)
    assert {(row.state.kind.value, row.attempt, row.deliveries) for row in rows} == {("success", 2, 1)}
    assert all(row.completed_time is not None and row.next_at is None for row in rows)
    shop.deliver(ids)
    shop.deliver(ids, 1)
    shop.deliver(ids, 2)
    once_each(shop, 21)


@KINDS
def test_few_or_not_brief_are_claimed_one_by_one(shop: Shop, kind: str) -> None:
    two = shop.schedule(*[kind] * 2)
    shop.deliver(two)
    assert {(row.state.kind.value, row.attempt) for row in shop.rows(two)} == {("success", 1)}

    shop.known_for(shop.functions[kind].name, seconds=1)
    many = shop.schedule(*[kind] * 2)
    shop.deliver(many)
    assert {(row.state.kind.value, row.attempt) for row in shop.rows(many)} == {("success", 1)}
    assert shop.ran == [0, 1, 0, 1]


def test_kinds_that_mix_are_held_together(shop: Shop) -> None:
    ids = shop.schedule("action", "task", "task", "action", "action")
    shop.deliver(ids)
    assert {(row.state.kind.value, row.attempt) for row in shop.rows(ids)} == {("success", 2)}
    once_each(shop, 5)


@KINDS
@pytest.mark.parametrize("number", [1, 2, 5])
def test_one_that_is_canceled_while_it_is_held_never_begins(shop: Shop, kind: str, number: int) -> None:
    ids = shop.schedule(*[kind] * 6)
    said: list[bool] = []
    shop.doings[0] = lambda: said.append(shop.confect.scheduler.cancel(ids[number]))
    shop.deliver(ids)

    assert said == [True]
    assert shop.states(ids) == ["canceled" if n == number else "success" for n in range(6)]
    once_each(shop, 6, but=[number])


@KINDS
def test_one_that_is_canceled_while_it_runs_stays_canceled(shop: Shop, kind: str) -> None:
    ids = shop.schedule(*[kind] * 4)
    shop.doings[1] = lambda: shop.confect.scheduler.cancel(ids[1])
    shop.deliver(ids)
    assert shop.states(ids) == ["success", "canceled", "success", "success"]
    once_each(shop, 4)


@KINDS
def test_one_that_is_moved_while_it_is_held_runs_at_its_new_time_only(shop: Shop, kind: str) -> None:
    ids = shop.schedule(*[kind] * 5)
    shop.doings[0] = lambda: shop.confect.scheduler.reschedule(ids[3], Duration.seconds(5))
    shop.deliver(ids)
    once_each(shop, 5, but=[3])
    moved = shop.rows(ids)[3]
    assert (moved.state.kind, moved.attempt, moved.deliveries) == (StateKind.PENDING, 2, 0)
    assert moved.next_at is not None and moved.next_at > DateTime.now() + Duration.seconds(3)

    for old in (0, 1):
        shop.deliver([ids[3]], old)
    assert shop.dispatch() == [] and 3 not in shop.ran
    taken = shop.dispatch(after=Duration.seconds(6))
    assert [(each.id, each.attempt) for each in taken] == [(ids[3], 2)]


@KINDS
def test_one_that_raises_fails_alone(shop: Shop, kind: str) -> None:
    def refuse() -> None:
        raise ValueError("no")

    ids = shop.schedule(*[kind] * 5)
    shop.doings[2] = refuse
    shop.deliver(ids)
    assert shop.states(ids) == ["success", "success", "failed", "success", "success"]
    error = shop.rows(ids)[2].state.error
    assert error is not None and (error.tag, error.message) == ("ValueError", "no")
    once_each(shop, 5)


def test_args_that_fit_no_more_fail_it_alone(shop: Shop) -> None:
    ids = shop.schedule(*["action"] * 5)
    with shop.store.database.transaction() as transaction:
        table = shop.store.table
        transaction.connection.execute(sa.update(table).where(table.c.id == ids[2]).values(args={"other": 1}))
    shop.deliver(ids)
    rows = shop.rows(ids)
    assert [row.state.kind.value for row in rows] == ["success", "success", "failed", "success", "success"]
    assert rows[2].state.error is not None and rows[2].state.error.tag == "InvalidArguments"
    assert rows[2].attempt == 1, "it was held, and has not begun"
    once_each(shop, 5, but=[2])


def test_a_task_that_was_held_retries_as_ever(shop: Shop) -> None:
    def refuse() -> None:
        raise Refused

    ids = shop.schedule(*["task"] * 4)
    shop.doings[1] = refuse
    before = DateTime.now()
    shop.deliver(ids)
    again = shop.rows(ids)[1]
    assert shop.states(ids) == ["success", "pending", "success", "success"]
    assert (again.attempt, again.options.get("retries"), again.deliveries) == (3, 1, 0)
    assert again.next_at is not None
    assert Duration.seconds(19) < again.next_at - before < Duration.seconds(25)

    shop.deliver(ids)
    assert shop.ran == [0, 1, 2, 3], "its time has not come, and older messages start nothing"
    taken = shop.dispatch(after=Duration.seconds(30))
    assert [(each.id, each.attempt) for each in taken] == [(ids[1], 3)]
    shop.deliver([ids[1]], 3)
    assert shop.states([ids[1]]) == ["success"] and shop.ran == [0, 1, 2, 3, 1]


@pytest.mark.parametrize("count", [1, 4])
def test_the_retry_of_a_batch_goes_out_as_it_would_have_alone(shop: Shop, count: int, caplog: Any) -> None:
    def refuse() -> None:
        raise Refused

    ids = shop.schedule(*["task"] * count)
    shop.doings[0] = refuse
    shop.deliver(ids)
    options = shop.rows(ids)[0].options
    assert options["retries"] == 1
    assert not [name for name in options.get("headers", ()) if name.startswith("confect")]
    assert "not durable" not in caplog.text


@KINDS
def test_what_a_late_batch_holds_is_given_back(shop: Shop, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    ticks = Ticks()
    monkeypatch.setattr(batch_run, "time", ticks)
    ids = shop.schedule(*[kind] * 18)
    shop.doings[1] = lambda: ticks.sleep(61)
    assert shop.deliver(ids) == 2
    rows = shop.rows(ids)
    assert [row.state.kind.value for row in rows] == ["success"] * 2 + ["pending"] * 16
    assert {(row.attempt, row.deliveries) for row in rows[2:17]} == {(1, 0)}, "at once, and not as one that got lost"

    taken = shop.dispatch()
    assert {each.id for each in taken} >= set(ids[2:17])
    shop.known_for(shop.functions[kind].name, seconds=0)
    shop.receive([(each.id, each.attempt) for each in taken])
    assert set(shop.ran[:17]) == set(range(17)) and len(shop.ran) == len(set(shop.ran))


@KINDS
def test_what_is_held_is_given_back_where_the_child_is_told_to_exit(shop: Shop, kind: str) -> None:
    def leave() -> None:
        raise SystemExit(3)

    ids = shop.schedule(*[kind] * 6)
    shop.doings[2] = leave
    with pytest.raises(SystemExit):
        shop.deliver(ids)
    rows = shop.rows(ids)
    assert [row.state.kind.value for row in rows][:2] == ["success"] * 2
    assert [(row.state.kind.value, row.attempt, row.deliveries) for row in rows][3:] == [("pending", 1, 0)] * 3
    assert shop.ran == [0, 1, 2]


@KINDS
def test_a_second_message_of_theirs_starts_nothing(shop: Shop, kind: str) -> None:
    ids = shop.schedule(*[kind] * 8)
    shop.doings[0] = lambda: shop.deliver(ids)
    shop.doings[3] = lambda: (shop.deliver(ids), shop.deliver(ids, 1), shop.deliver(ids, 2))
    shop.deliver(ids)
    assert shop.states(ids) == ["success"] * 8
    once_each(shop, 8)


def forge(shop: Shop, ids: Sequence[str], attempt: int) -> None:
    """Messages for each alone, as somebody could write them who can write to the broker."""
    for id in ids:
        row = shop.rows([id])[0]
        shop.confect.gate.run(id, attempt, row.name)


def test_a_message_that_nobody_sent_does_not_make_it_begin_twice(shop: Shop) -> None:
    ids = shop.schedule(*["action"] * 5)
    shop.doings[0] = lambda: forge(shop, ids, 1)  # the attempt that the hold has given them
    shop.deliver(ids)
    assert shop.states(ids) == ["success"] * 5
    once_each(shop, 5)


@KINDS
def test_others_take_what_was_held_too_long_and_its_holder_leaves_it_to_them(shop: Shop, kind: str) -> None:
    ids = shop.schedule(*[kind] * 6)
    taken: list[Delivery] = []

    def take() -> None:
        assert shop.dispatch(after=HELD_FOR - Duration.seconds(1)) == []
        taken.extend(shop.dispatch(after=LATER))
        assert shop.dispatch(after=LATER) == [], "once"

    shop.doings[1] = take
    shop.deliver(ids)
    assert {(each.id, each.attempt) for each in taken} == {(id, 1) for id in ids[2:]}
    assert shop.ran == [0, 1]
    rows = shop.rows(ids)
    assert [(row.state.kind.value, row.attempt, row.deliveries) for row in rows[2:]] == [("pending", 1, 1)] * 4

    shop.deliver([each.id for each in taken], 1)
    assert shop.states(ids) == ["success"] * 6
    once_each(shop, 6)


@KINDS
def test_of_a_holder_that_comes_late_and_the_new_message_one_runs_it(shop: Shop, kind: str) -> None:
    ids = shop.schedule(*[kind] * 6)

    def meanwhile() -> None:
        taken = shop.dispatch(after=LATER)
        shop.deliver([each.id for each in taken], 1)

    shop.doings[1] = meanwhile
    shop.deliver(ids)
    assert shop.states(ids) == ["success"] * 6
    once_each(shop, 6)


@KINDS
def test_after_a_failure_of_the_server_who_still_holds_them_goes_on(shop: Shop, kind: str) -> None:
    ids = shop.schedule(*[kind] * 6)

    def fail() -> None:
        shop.server_fails()
        assert shop.dispatch(after=LATER) == [], "they may have begun: nobody else may have them"
        assert [row.deliveries for row in shop.rows(ids[2:])] == [-2] * 4

    shop.doings[1] = fail
    shop.deliver(ids)
    assert shop.states(ids) == ["success"] * 6
    once_each(shop, 6)


def test_after_a_failure_of_the_server_what_nobody_tells_of_fails(shop: Shop) -> None:
    ids = shop.schedule(*["action"] * 5)
    shop.dies_with(ids, at=0)
    shop.server_fails()
    assert shop.dispatch(after=LATER) == []
    assert shop.states(ids)[1:] == ["pending"] * 4, "who holds them may be about to tell"
    assert shop.dispatch(after=LATER + HELD_FOR - Duration.seconds(1)) == []
    assert shop.states(ids)[1:] == ["pending"] * 4
    assert shop.dispatch(after=LATER + LATER) == []
    rows = shop.rows(ids)[1:]
    assert [(row.state.kind.value, row.state.error and row.state.error.tag) for row in rows] == [
        ("failed", "WorkerLost")
    ] * 4
    shop.deliver(ids, 1)
    forge(shop, ids, 1)
    assert shop.ran == [0]


def test_after_a_failure_of_the_server_what_its_worker_gives_back_runs(shop: Shop) -> None:
    ids = shop.schedule(*["action"] * 5)
    shop.dies_with(ids, at=0)
    shop.server_fails()
    assert shop.dispatch(after=LATER) == []
    with shop.store.database.transaction() as transaction:
        assert shop.store.rows.release(transaction.connection, ids, 0, DateTime.now()) == 0, "not at this attempt"
        assert shop.store.rows.release(transaction.connection, ids, 1, DateTime.now()) == 4
    taken = shop.dispatch()
    assert {each.id for each in taken} == set(ids[1:])
    shop.deliver([each.id for each in taken], 1)
    once_each(shop, 5)


def test_a_server_that_keeps_no_count_hands_over_nothing_that_was_held(shop: Shop) -> None:
    ids = shop.schedule(*["action"] * 4)
    shop.dies_with(ids, at=0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(shop.store.database.dialect), "kept_all_since", lambda *_: None)
        assert shop.dispatch(after=LATER) == [] == shop.dispatch(after=LATER + LATER)
    assert shop.states(ids)[1:] == ["failed"] * 3


def test_a_hold_whose_answer_is_lost_holds_them_all_the_same(shop: Shop) -> None:
    ids = shop.schedule(*["action"] * 6)
    hold, cut = Statements.hold, []

    def hold_and_lose_the_answer(rows: Statements, connection: sa.Connection, *args: Any) -> set[str]:
        found = hold(rows, connection, *args)
        if not cut:
            cut.append(found)
            connection.exec_driver_sql("SELECT pg_terminate_backend(pg_backend_pid())")
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Statements, "hold", hold_and_lose_the_answer)
        shop.deliver(ids)
    assert cut == [set(ids)]
    assert shop.states(ids) == ["success"] * 6
    once_each(shop, 6)


@pytest.mark.parametrize("statement", ["begin", "succeed_and_begin"])
def test_a_begin_whose_connection_breaks_before_it_is_tried_again(shop: Shop, statement: str) -> None:
    ids = shop.schedule(*["action"] * 5)
    original, cut = getattr(Statements, statement), []

    def after_a_cut(rows: Statements, connection: sa.Connection, *args: Any) -> Any:
        if not cut:
            cut.append(args)
            connection.exec_driver_sql("SELECT pg_terminate_backend(pg_backend_pid())")
        return original(rows, connection, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Statements, statement, after_a_cut)
        shop.deliver(ids)
    assert cut and shop.states(ids) == ["success"] * 5
    once_each(shop, 5)


def test_a_child_that_is_ready_compiles_nothing(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    held, few = shop.schedule(*["action", "task"] * 3), shop.schedule("action", "task")
    _get_ready(shop.confect._parts)
    compiled: list[str] = []
    compiles = SQLCompiler.__init__

    def noted(self: SQLCompiler, dialect: Any, statement: Any, *args: Any, **kwargs: Any) -> None:
        compiles(self, dialect, statement, *args, **kwargs)
        compiled.append(self.string)

    entries = [[(row.id, row.attempt) for row in shop.rows(ids)] for ids in (held, few)]
    with monkeypatch.context() as patch:
        patch.setattr(SQLCompiler, "__init__", noted)
        for each in entries:
            shop.receive(each)
    assert {row.attempt for row in shop.rows(held)} == {2} and {row.attempt for row in shop.rows(few)} == {1}
    assert compiled == []


def test_a_task_that_comes_alone_is_read_and_claimed_by_one_statement(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    (id,) = shop.schedule("task")
    task, asked = shop.functions["task"], []

    def noting(name: str) -> None:
        does = getattr(Statements, name)

        def noted(self: Statements, *args: Any) -> Any:
            asked.append(name)
            return does(self, *args)

        monkeypatch.setattr(Statements, name, noted)

    for name in ("load", "start", "start_due", "succeed_running"):
        noting(name)
    trace_task(task, id, (), {"n": 0}, {ATTEMPT_HEADER: 0, "id": id}, app=shop.confect.app)
    assert asked == ["start_due", "succeed_running"]
    assert shop.ran == [0] and shop.states([id]) == ["success"]
