"""The gate, the reconciler and the dispatcher, on the harness: what runs, and what the row says of it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pytest
import sqlalchemy as sa
from pydantic import BaseModel
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from confect_celery import (
    ActionRunner,
    Confect,
    DatabaseReader,
    DatabaseWriter,
    Duration,
    MutationRunner,
    QueryRunner,
    ScheduledFunction,
    ScheduledFunctionId,
    Scheduler,
    ServiceError,
    StateKind,
)
from confect_celery.errors import Unreadable
from confect_celery.runtime import Dropped, Reconciler, Succeeded
from confect_celery.runtime.claims import Claims
from confect_celery.runtime.messages import RUNS_AS
from confect_celery.store import Delivery
from confect_celery.testing import Harness, TooManyIterations
from tests.store.test_database import transient

Labels = Callable[[], list[str]]
SECOND = Duration.seconds(1)


class Label(BaseModel):
    label: str


class Unknown:
    """A service that nobody provides."""


@dataclass
class DeclaredError(Exception):
    label: str

    def __str__(self) -> str:
        return f"declared {self.label}"


@pytest.fixture
def mark(confect: Confect) -> Any:
    @confect.group("t").internal_mutation
    def mark(args: Label, db: DatabaseWriter) -> None:
        db.table("marks").insert({"label": args.label})

    return mark


def only(rows: list[ScheduledFunction]) -> ScheduledFunction:
    (row,) = rows
    return row


def delivery(shop: Harness, id: str, attempt: int = 0) -> Delivery:
    row = shop.confect.scheduler.get(id)
    assert row is not None
    return Delivery(row.id, row.name, row.kind, row.args, row.scheduled_time, attempt, row.options, None)


def test_a_mutation_that_raises_leaves_only_its_failure(shop: Harness, mark: Any, marks: Labels) -> None:
    @shop.confect.group("t").internal_mutation(errors=(DeclaredError,))
    def breaks(args: Label, db: DatabaseWriter, scheduler: Scheduler) -> None:
        db.table("marks").insert({"label": args.label})
        scheduler.run_after(SECOND, mark, {"label": "child"})
        raise DeclaredError(args.label)

    shop.confect.scheduler.run_after(SECOND, breaks, {"label": "x"})
    row = only(shop.run_all())
    assert row.state.kind is StateKind.FAILED and row.state.error is not None
    assert (row.state.error.tag, row.state.error.message) == ("DeclaredError", "declared x")
    assert (row.state.error.data, row.state.error.traceback) == ({"label": "x"}, None)
    assert marks() == [] and shop.scheduled() == []


def test_an_undeclared_error_keeps_its_traceback(shop: Harness) -> None:
    @shop.confect.group("t").internal_mutation
    def divides() -> None:
        _ = 1 / 0

    shop.confect.scheduler.run_after(SECOND, divides)
    error = only(shop.run_all()).state.error
    assert error is not None and error.tag == "ZeroDivisionError"
    assert error.traceback is not None and "in divides" in error.traceback


def test_an_action_that_raises_keeps_what_it_did(shop: Harness, mark: Any, marks: Labels) -> None:
    @shop.confect.group("t").internal_action
    def acts(args: Label, scheduler: Scheduler, run_mutation: MutationRunner) -> None:
        run_mutation(mark, {"label": args.label})
        scheduler.run_after(SECOND, mark, {"label": "child"})
        raise ValueError("afterwards")

    id = shop.confect.scheduler.run_after(SECOND, acts, {"label": "x"})
    first, child = shop.run_all()
    assert (first.id, first.state.kind, first.attempt) == (id, StateKind.FAILED, 1)
    assert (child.state.kind, child.parent_id) == (StateKind.SUCCESS, id)
    assert marks() == ["child", "x"]


def test_an_action_canceled_while_it_runs_is_ignored_and_its_children_born_canceled(
    shop: Harness, mark: Any, marks: Labels
) -> None:
    confect, children = shop.confect, []

    @confect.group("t").internal_mutation
    def schedules(scheduler: Scheduler) -> str:
        return scheduler.run_after(SECOND, mark, {"label": "through a mutation"})

    @confect.group("t").internal_action
    def acts(scheduler: Scheduler, run_mutation: MutationRunner, me: ScheduledFunctionId | None) -> None:
        assert me is not None
        children.append(scheduler.run_after(SECOND, mark, {"label": "before"}))
        assert confect.scheduler.cancel(me) is True
        children.append(scheduler.run_after(SECOND, mark, {"label": "after"}))
        children.append(run_mutation(schedules))

    id = confect.scheduler.run_after(SECOND, acts)
    shop.run_all()
    row = confect.scheduler.get(id)
    assert row is not None and row.state.kind is StateKind.CANCELED
    states = [found.state.kind.value for child in children if (found := confect.scheduler.get(child))]
    assert states == ["success", "canceled", "canceled"] and marks() == ["before"]


def test_a_mutation_canceled_while_it_runs_rolls_back(shop: Harness, marks: Labels) -> None:
    """On one database, the cancel joins the mutation's own transaction: the guard at the end sees it all the same."""
    confect = shop.confect

    @confect.group("t").internal_mutation
    def slow(db: DatabaseWriter, connection: sa.Connection, me: ScheduledFunctionId | None) -> None:
        db.table("marks").insert({"label": "lost"})
        assert me is not None
        confect.store.rows.cancel(connection, me, confect.clock.now())

    id = confect.scheduler.run_after(SECOND * 3, slow)
    assert shop.confect.run_delivery(delivery(shop, id)) == Dropped("early")
    shop.advance(SECOND * 3)
    outcome = confect.run_delivery(delivery(shop, id))
    assert isinstance(outcome, Dropped) and marks() == []


def test_duplicates_and_older_attempts_start_nothing(shop: Harness, mark: Any, marks: Labels) -> None:
    id = shop.confect.scheduler.run_after(SECOND, mark, {"label": "x"})
    shop.advance(SECOND)
    message = delivery(shop, id)
    assert isinstance(shop.confect.run_delivery(message), Succeeded)
    assert shop.confect.run_delivery(message) == Dropped("finished")
    other = shop.confect.scheduler.run_after(SECOND, mark, {"label": "y"})
    old = delivery(shop, other)
    shop.confect.scheduler.reschedule(other, SECOND)
    shop.advance(SECOND)
    assert shop.confect.run_delivery(old) == Dropped("superseded")
    shop.confect.scheduler.cancel(other)
    assert shop.confect.run_delivery(old) == Dropped("canceled")
    with shop.confect.store.database.transaction() as t:
        t.connection.execute(sa.delete(shop.confect.store.table))
    assert shop.confect.run_delivery(old) == Dropped("missing")
    assert marks() == ["x"]


def test_a_function_that_is_gone_fails_its_row_and_no_other(shop: Harness, mark: Any, marks: Labels) -> None:
    gone = shop.confect.scheduler.run_after(SECOND, mark, {"label": "gone"})
    with shop.confect.store.database.transaction() as t:
        t.connection.execute(sa.update(shop.confect.store.table).values(name="internal/t/marc"))
    fine = shop.confect.scheduler.run_after(SECOND, mark, {"label": "fine"})
    rows = {row.id: row for row in shop.run_all()}
    error = rows[gone].state.error
    assert error is not None and error.tag == "UnknownFunction" and "internal/t/marc" in error.message
    assert rows[fine].state.kind is StateKind.SUCCESS and marks() == ["fine"]


def test_arguments_that_fit_no_longer_fail_their_row(shop: Harness, mark: Any) -> None:
    shop.confect.scheduler.run_after(SECOND, mark, {"label": "x"})
    with shop.confect.store.database.transaction() as t:
        t.connection.execute(sa.update(shop.confect.store.table).values(args={"lable": "x"}))
    error = only(shop.run_all()).state.error
    assert error is not None and error.tag == "InvalidArguments" and "label: Field required" in error.message


def test_transient_database_errors_are_retried_and_then_postponed(
    shop: Harness, marks: Labels, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("confect_celery.store.database._FIRST_BACKOFF_SECONDS", 0.0001)
    calls: list[int] = []

    @shop.confect.group("t").internal_mutation
    def unlucky(db: DatabaseWriter) -> None:
        calls.append(1)
        db.table("marks").insert({"label": f"try {len(calls)}"})
        if len(calls) < 13:
            raise transient(shop.confect.store.database)

    id = shop.confect.scheduler.run_after(SECOND, unlucky)
    shop.advance(SECOND)
    shop.run_due()
    row = shop.confect.scheduler.get(id)
    assert row is not None and row.state.kind is StateKind.PENDING and row.attempt == 1 and len(calls) == 10
    row = shop.run_all()[-1]
    assert row.state.kind is StateKind.SUCCESS and marks() == ["try 13"]


def test_every_kind_gets_its_services(shop: Harness, marks: Labels) -> None:
    group = shop.confect.group("s")

    @group.query
    def count(db: DatabaseReader) -> int:
        return db.table("marks").count()

    @group.internal_mutation
    def add(args: Label, db: DatabaseWriter, session: Session, query: QueryRunner) -> int:
        db.table("marks").insert({"label": args.label})
        session.execute(sa.text("INSERT INTO marks (label) VALUES ('by the session')"))
        session.commit()  # does not end the mutation's transaction
        return query(count)

    @group.action
    def act(args: Label, query: QueryRunner, mutate: MutationRunner, action: ActionRunner) -> list[int]:
        return [query(count), mutate(add, args), action(inner)]

    @group.internal_action
    def inner(query: QueryRunner) -> int:
        return query(count)

    shop.confect.check()
    assert shop.confect.run_action(act, Label(label="x")) == [0, 2, 2]
    assert marks() == ["by the session", "x"]


def test_a_nested_mutation_may_fail_alone(shop: Harness, mark: Any, marks: Labels) -> None:
    group = shop.confect.group("n")

    @group.internal_mutation
    def fails(db: DatabaseWriter, scheduler: Scheduler) -> None:
        db.table("marks").insert({"label": "inner"})
        scheduler.run_after(SECOND, mark, {"label": "inner child"})
        raise KeyError("inner")

    @group.mutation
    def outer(db: DatabaseWriter, run_mutation: MutationRunner) -> None:
        db.table("marks").insert({"label": "outer"})
        with pytest.raises(KeyError):
            run_mutation(fails)

    shop.confect.run_mutation(outer)
    assert marks() == ["outer"] and shop.scheduled() == []


def test_what_cannot_be_injected_is_told_at_start(confect: Confect) -> None:
    @confect.group("bad").internal_mutation
    def wrong(service: Unknown) -> None: ...

    with pytest.raises(ServiceError, match=r"'service' of 'internal/bad/wrong'.*no service Unknown") as caught:
        confect.check()
    assert (caught.value.function, caught.value.parameter) == ("internal/bad/wrong", "service")
    confect.provide(Unknown, Unknown)
    confect.check()

    @confect.group("bad").internal_action
    def worse(db: DatabaseWriter) -> None: ...

    with pytest.raises(ServiceError, match="may not have DatabaseWriter"):
        confect.check()


def test_run_all_gives_up_on_a_function_that_schedules_itself_for_ever(shop: Harness) -> None:
    @shop.confect.group("t").internal_mutation
    def again(scheduler: Scheduler) -> None:
        scheduler.run_after(SECOND, shop.confect.refs.internal.t.again)

    shop.confect.scheduler.run_after(SECOND, again)
    with pytest.raises(TooManyIterations):
        shop.run_all(max_iterations=5)


class TestReconciler:
    @pytest.fixture
    def reconciler(self, shop: Harness) -> Reconciler:
        return Reconciler(shop.confect.store, shop.clock, shop.confect.settings, lambda: self.running)

    @pytest.fixture(autouse=True)
    def _none_running(self) -> None:
        self.running: list[str] = []

    @pytest.fixture
    def act(self, confect: Confect) -> Any:
        @confect.group("t").internal_action
        def act() -> None: ...

        return act

    def _start(self, shop: Harness, act: Any) -> str:
        id = shop.confect.scheduler.run_after(SECOND, act)
        with shop.confect.store.database.transaction() as t:
            until = shop.clock.now() + shop.confect.settings.redelivery
            assert shop.confect.store.rows.start(t.connection, id, 0, until)
        return id

    def _state(self, shop: Harness, id: str) -> tuple[str, str | None, int]:
        row = shop.confect.scheduler.get(id)
        assert row is not None
        return row.state.kind.value, row.state.error.tag if row.state.error else None, row.attempt

    def test_an_action_whose_child_died_fails(self, shop: Harness, reconciler: Reconciler, act: Any) -> None:
        id = self._start(shop, act)
        reconciler.worker_lost(id, 0, "signal 9")
        reconciler.apply_told()
        assert self._state(shop, id) == ("failed", "WorkerLost", 1)

    def test_an_action_that_had_not_begun_is_left_to_its_message(
        self, shop: Harness, reconciler: Reconciler, mark: Any
    ) -> None:
        id = shop.confect.scheduler.run_after(SECOND, mark, {"label": "x"})
        for attempt in range(3):
            assert self._state(shop, id) == ("pending", None, attempt)
            reconciler.worker_lost(id, attempt, "signal 9")
            reconciler.apply_told()
        assert self._state(shop, id) == ("failed", "WorkerLost", 3)
        reconciler.worker_lost(id, 3, "signal 9")
        reconciler.apply_told()
        assert self._state(shop, id) == ("failed", "WorkerLost", 3)

    def test_what_can_never_be_applied_is_given_up_and_holds_up_nobody(
        self, shop: Harness, reconciler: Reconciler, act: Any
    ) -> None:
        def impossible(_: object) -> None:
            raise ValueError("told wrongly")

        id = self._start(shop, act)
        reconciler._tell(impossible)
        reconciler.timed_out(id, 0, 2.0)
        reconciler.apply_told()
        assert self._state(shop, id) == ("failed", "TimeLimitExceeded", 1)
        assert reconciler._told.empty()

    def test_what_cannot_be_applied_now_is_kept_and_leases_are_renewed_all_the_same(
        self, shop: Harness, reconciler: Reconciler, act: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("confect_celery.store.database._FIRST_BACKOFF_SECONDS", 0.0001)
        tries: list[int] = []

        def at_last(_: object) -> None:
            tries.append(1)
            if len(tries) < 12:
                raise transient(shop.confect.store.database)

        self.running = [id := self._start(shop, act)]
        reconciler._tell(at_last)
        shop.advance(shop.confect.settings.redelivery * 0.9)
        with pytest.raises(OperationalError):
            reconciler.tick()
        shop.advance(shop.confect.settings.redelivery * 0.9)
        reconciler.sweep()
        assert self._state(shop, id) == ("inProgress", None, 1)
        with suppress(OperationalError):
            reconciler.tick()
        reconciler.tick()
        assert len(tries) == 12 and reconciler._told.empty()

    def test_limits_revokes_and_unknown_tasks(self, shop: Harness, reconciler: Reconciler, act: Any, mark: Any) -> None:
        running = self._start(shop, act)
        pending, unknown, revoked = (shop.confect.scheduler.run_after(SECOND, mark, {"label": "x"}) for _ in range(3))
        reconciler.timed_out(running, 0, 2.0)
        reconciler.timed_out(pending, 0, 2.0)
        reconciler.unknown(unknown, 0, shop.confect.scheduler.get(unknown).name)
        reconciler.unknown(pending, 0, "internal/t/another")
        reconciler.revoked([revoked])
        reconciler.apply_told()
        assert self._state(shop, running) == ("failed", "TimeLimitExceeded", 1)
        assert self._state(shop, pending) == ("failed", "TimeLimitExceeded", 0)
        assert self._state(shop, unknown) == ("failed", "UnknownFunction", 0)
        assert self._state(shop, revoked) == ("canceled", None, 0)

    def test_a_lease_is_renewed_while_the_worker_lives_and_runs_out_when_it_does_not(
        self, shop: Harness, reconciler: Reconciler, act: Any
    ) -> None:
        id = self._start(shop, act)
        self.running = [id]
        for _ in range(10):
            shop.advance(shop.confect.settings.redelivery * 0.9)
            reconciler.tick()
        assert self._state(shop, id)[0] == "inProgress"
        self.running = []
        shop.advance(shop.confect.settings.redelivery)
        reconciler.tick()
        assert self._state(shop, id) == ("failed", "WorkerLost", 1)

    def test_retention(self, shop: Harness, reconciler: Reconciler, mark: Any) -> None:
        done = shop.confect.scheduler.run_after(SECOND, mark, {"label": "x"})
        shop.run_all()
        far = shop.confect.scheduler.run_after(Duration.days(100), mark, {"label": "y"})
        shop.advance(shop.confect.settings.retention)
        while reconciler.prune():
            pass
        assert shop.confect.scheduler.get(done) is not None
        shop.advance(SECOND)
        while reconciler.prune():
            pass
        assert shop.confect.scheduler.get(done) is None and shop.confect.scheduler.get(far) is not None


def test_a_message_the_broker_refused_is_tried_again(shop: Harness, mark: Any, marks: Labels) -> None:
    from confect_celery.runtime import Outbox

    class Broken:
        def publish(self, delivery: Delivery) -> None:
            raise ConnectionError("the broker is away")

    id = shop.confect.scheduler.run_after(SECOND * 3, mark, {"label": "x"})
    shop.advance(SECOND * 3)
    (claimed,) = shop._dispatcher.claim()
    assert Outbox(shop.confect.store, Broken(), shop.clock).publish(claimed) is False
    assert shop._dispatcher.claim() != [], "it is due again within the horizon"
    row = shop.confect.scheduler.get(id)
    assert row is not None and row.state.kind is StateKind.PENDING
    assert len(shop.run_all()) == 1 and marks() == ["x"]


BROKEN = pytest.mark.parametrize(
    ("store", "broken"),
    [
        ("sqlite", "UPDATE _scheduled_functions SET args = '{'"),
        ("postgresql", "UPDATE _scheduled_functions SET creation_time = '-infinity'"),
    ],
    indirect=["store"],
)


@BROKEN
def test_a_row_that_nobody_can_read_hides_no_other_of_its_batch(shop: Harness, broken: str) -> None:
    @shop.confect.group("t").internal_action
    def act() -> None: ...

    ids = shop.confect.scheduler.run_many([(SECOND, act, None)] * 3)
    with shop.confect.store.database.transaction() as t:
        t.connection.exec_driver_sql(f"{broken} WHERE id = '{ids[1]}'")
    with shop.confect.store.database.autocommit() as connection:
        assert list(shop.confect.store.rows.load_many(connection, ids)) == [ids[0], ids[2]]
        assert shop.confect.store.rows.load_many(connection, ids[1:2]) == {}


@BROKEN
def test_an_action_whose_row_nobody_can_read_any_more_has_not_started(shop: Harness, broken: str) -> None:
    ran: list[str] = []

    @shop.confect.group("t").internal_action
    def act(args: Label) -> None:
        ran.append(args.label)

    id = shop.confect.scheduler.run_after(SECOND, act, {"label": "x"})
    shop.advance(SECOND)
    with shop.confect.store.database.transaction() as t:
        t.connection.exec_driver_sql(broken)
    with pytest.raises(Unreadable):
        shop.confect.gate.run(id, 0, act.name)
    with shop.confect.store.database.snapshot() as connection:
        looked = connection.exec_driver_sql("SELECT state, attempt, deliveries, losses FROM _scheduled_functions").all()
    assert [tuple(row) for row in looked] == [("pending", 2, 0, 0)] and ran == []


@pytest.mark.parametrize("store", ["sqlite", "postgresql"], indirect=True)
def test_a_message_with_the_name_of_a_task_that_another_has_replaced_starts_nothing(shop: Harness) -> None:
    @shop.confect.app.task(name="plain", shared=False)
    def plain() -> None: ...

    id = shop.confect.scheduler.run_after(SECOND, plain.s())
    shop.advance(SECOND)
    table = shop.confect.store.rows.table
    with shop.confect.store.database.transaction() as t:
        t.connection.execute(sa.update(table).values(options={RUNS_AS: "another"}))

    assert Claims(shop.confect.store, shop.clock, shop.confect.settings).start_due(id, 0, "plain") is None
    row = shop.confect.scheduler.get(id)
    assert row is not None and (row.state.kind, row.attempt, row.losses) == (StateKind.PENDING, 2, 0)


@pytest.mark.parametrize("store", ["sqlite"], indirect=True)
def test_a_dispatcher_that_found_many_looks_again_sooner(shop: Harness, confect: Confect) -> None:
    @confect.group("t").internal_action
    def act() -> None: ...

    pauses = []
    for count in (59, 60):
        confect.scheduler.run_many([(SECOND, act, {})] * count)
        shop.advance(SECOND)
        pauses.append(shop._dispatcher.tick())
    assert pauses[0] > 0.3 >= pauses[1]
