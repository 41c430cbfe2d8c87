"""Brief mutations of a batch share a transaction: one commit for all, and each as if it had run alone.

Drives `BatchRun` and the real tasks on a database; the time bounds, which have tests of their own, are set so far away
that a loaded machine does not come there.
"""

from __future__ import annotations

import contextvars
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy as sa
from celery import Celery, signals
from pydantic import BaseModel
from sqlalchemy import event
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.orm import Session

from confect_celery import (
    Confect,
    DatabaseWriter,
    Duration,
    MutationRunner,
    ScheduledFunction,
    ScheduledFunctionId,
    Scheduler,
)
from confect_celery.runtime import CeleryTransport, batch_run, brevity, gate, sharing
from confect_celery.runtime.batch_run import BatchRun
from confect_celery.runtime.batches import BATCH_HEADER
from confect_celery.runtime.brevity import Brevity
from confect_celery.store import Delivery, Store
from confect_celery.store.dialects import libpq, postgresql
from tests.support.ticks import Ticks

BOTH = pytest.mark.parametrize("store", ["sqlite", "postgresql"], indirect=True)
POSTGRESQL = pytest.mark.parametrize("store", ["postgresql"], indirect=True)
"""SQLite has one writer: there nobody changes anything beside an open transaction."""


class Label(BaseModel):
    label: str


class Declared(Exception):
    """What a function raises on purpose."""


@dataclass
class Given:
    """What a mutation has in its hands."""

    db: DatabaseWriter
    scheduler: Scheduler
    run_mutation: MutationRunner


Does = Callable[[Given], object]


@dataclass
class Shop:
    """`mark` inserts its label, and then does what `does` says of it."""

    confect: Confect
    does: dict[str, Does] = field(default_factory=dict)
    ran: list[str] = field(default_factory=list)
    heard: list[tuple[str, str, str, bool]] = field(default_factory=list)
    """What Celery said, of which label, and what another connection saw then: the row's state, its mark."""
    published: list[tuple[str, bool]] = field(default_factory=list)
    """Of which label there was a message, and whether another connection saw the row then."""
    commits: int = 0
    mark: Any = None
    ids: dict[str, ScheduledFunctionId] = field(default_factory=dict)

    def schedule(self, *labels: str, function: Any = None) -> list[ScheduledFunctionId]:
        ids = [self.confect.scheduler.run_after(Duration.zero, function or self.mark, {"label": x}) for x in labels]
        self.ids |= dict(zip(labels, ids, strict=True))
        self.published.clear()
        return ids

    def loaded(self, *labels: str) -> BatchRun:
        """A child that has read the rows, and has not begun to run them."""
        entries = [[row.id, row.attempt, row.name] for row in (self.row(label) for label in labels)]
        request = SimpleNamespace(id="batch", hostname="here", delivery_info={}, **{BATCH_HEADER: entries})
        transport = CeleryTransport(self.confect.app, self.confect.settings)
        return BatchRun(self.confect, request, None, transport)

    def run(self, *labels: str, function: Any = None) -> int:
        """Schedule, and run together; how many transactions that were."""
        self.schedule(*labels, function=function)
        before = self.commits
        self.loaded(*labels).run()
        return self.commits - before

    def row(self, label: str) -> ScheduledFunction:
        found = self.confect.scheduler.get(self.ids[label])
        assert found is not None
        return found

    def states(self) -> dict[str, str]:
        return {label: self.row(label).state.kind.value for label in self.ids}

    def results(self) -> dict[str, str]:
        return {label: self.confect.app.AsyncResult(id).state for label, id in self.ids.items()}

    def query(self, sql: str) -> list[Any]:
        """On a connection of its own."""
        with self.confect.store.database.engine.connect() as connection:
            return list(connection.exec_driver_sql(sql).all())

    def marks(self) -> list[str]:
        return sorted(label for (label,) in self.query("SELECT label FROM marks"))

    def children(self) -> list[ScheduledFunction]:
        """What was scheduled with the label `child`."""
        with self.confect.reader() as db:
            found = db.table("_scheduled_functions").filter(lambda q: q.eq(q.field("args.label"), "child"))
            return list(found.collect())

    def transactions(self) -> list[set[str]]:
        """The marks that one transaction left, on PostgreSQL; in the order of the transactions."""
        found: dict[int, set[str]] = {}
        for number, label in self.query("SELECT transaction, label FROM marks ORDER BY 1"):
            found.setdefault(number, set()).add(label)
        return list(found.values())


def brief(confect: Confect, *functions: Any) -> None:
    """This process has seen them run, and they were brief."""
    for function in functions:
        for _ in range(brevity._RUNS):
            confect.gate._brevity.ran(function.name, 0.0)


@pytest.fixture
def shop(store: Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    for module, name, value in (
        (sharing, "_LONGEST_SECONDS", 60.0),
        (batch_run, "LONGEST_SECONDS", 60.0),
        (brevity, "_BRIEF_SECONDS", 60.0),
        (postgresql, "_IDLE_MS", 3_000),
        (postgresql, "_TRANSACTION_MS", 60_000),
    ):
        monkeypatch.setattr(module, name, value)
    metadata = sa.MetaData()
    sa.Table("marks", metadata, sa.Column("id", sa.Integer, primary_key=True), sa.Column("label", sa.String(100)))
    app = Celery("sharing", broker="memory://", backend="cache+memory://", set_as_current=False)
    app.conf.update(confect_database_url=store.database.url.render_as_string(hide_password=False), confect_min_delay=0)
    confect = Confect(app, schema=metadata)
    it = Shop(confect)

    @confect.group("t").internal_mutation(errors=(Declared,))
    def mark(args: Label, db: DatabaseWriter, scheduler: Scheduler, run_mutation: MutationRunner) -> object:
        it.ran.append(args.label)
        db.table("marks").insert({"label": args.label})
        return it.does.get(args.label, lambda _: f"did {args.label}")(Given(db, scheduler, run_mutation))

    it.mark = mark

    def publish(delivery: Delivery) -> None:
        it.published.append((delivery.args["label"], confect.scheduler.get(delivery.id) is not None))

    def committed(_: sa.Connection) -> None:
        it.commits += 1

    with confect.redirected(publish=publish), hearing(it):
        engine = confect.store.database.engine
        metadata.create_all(engine)
        if engine.dialect.name == "postgresql":
            with engine.begin() as connection:
                connection.exec_driver_sql("ALTER TABLE marks ADD COLUMN transaction bigint DEFAULT txid_current()")
        event.listen(engine, "commit", committed)
        brief(confect, mark)
        yield it
        if (spare := confect.store.database._spare) is not None:
            spare.close(engine)
        assert engine.pool.checkedout() == 0, "a connection was not given back"  # type: ignore[attr-defined]
    confect.store.database.dispose()


@contextmanager
def hearing(shop: Shop) -> Iterator[None]:
    def note(what: str, id: str) -> None:
        label = next((label for label, known in shop.ids.items() if known == id), None)
        if label is not None:
            shop.heard.append((what, label, shop.row(label).state.kind.value, label in shop.marks()))

    def success(sender: Any, **_: Any) -> None:
        note("success", sender.request.id)

    def failure(task_id: str, **_: Any) -> None:
        note("failure", task_id)

    signals.task_success.connect(success)
    signals.task_failure.connect(failure)
    try:
        yield
    finally:
        signals.task_success.disconnect(success)
        signals.task_failure.disconnect(failure)


def raising(error: BaseException) -> Does:
    def does(_: Given) -> None:
        raise error

    return does


# -- that they share


@BOTH
def test_many_are_one_commit_and_what_celery_hears_of_them_is_true(shop: Shop, store: Store) -> None:
    labels = [f"m{n}" for n in range(10)]
    assert shop.run(*labels) == 1
    assert shop.ran == labels and shop.marks() == labels
    assert set(shop.states().values()) == {"success"} and set(shop.results().values()) == {"SUCCESS"}
    assert {shop.confect.app.AsyncResult(shop.ids[x]).result for x in labels} == {f"did {x}" for x in labels}
    assert sorted(shop.heard) == [("success", label, "success", True) for label in labels]
    if store.database.dialect.changes_in_ctes:
        assert shop.transactions() == [set(labels)]


@BOTH
def test_at_most_seventeen_share(shop: Shop) -> None:
    assert shop.run(*(f"m{n}" for n in range(50))) == 3, "and so none of a full batch is left over"
    assert set(shop.states().values()) == {"success"} and len(shop.marks()) == 50


@BOTH
def test_after_a_while_nobody_joins(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = Ticks()
    monkeypatch.setattr(sharing, "time", ticks)
    shop.does["m2"] = lambda _: ticks.sleep(61)
    assert shop.run(*(f"m{n}" for n in range(5))) == 2
    assert set(shop.states().values()) == {"success"}


@pytest.mark.parametrize("store", ["mariadb"], indirect=True)
def test_where_a_wait_cannot_be_bounded_nobody_shares(shop: Shop) -> None:
    assert shop.run("a", "b", "c") == 3
    assert shop.marks() == ["a", "b", "c"]


@BOTH
def test_actions_between_them_are_claimed_as_ever(shop: Shop) -> None:
    @shop.confect.group("t").internal_action
    def act(args: Label, run_mutation: MutationRunner) -> str:
        assert shop.states()["a"] == shop.states()["b"] == "success", "what came before it is committed"
        shop.ran.append(args.label)
        return args.label

    shop.schedule("a", "b", "d", "e")
    shop.schedule("c", "f", function=act)
    before = shop.commits
    shop.loaded("a", "b", "c", "d", "e", "f").run()
    assert shop.ran == ["a", "b", "c", "d", "e", "f"] and set(shop.states().values()) == {"success"}
    mutations = 2
    assert shop.commits - before == mutations, "a claim and an end are single statements"


@BOTH
def test_whoever_was_not_brief_has_its_own_transaction(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = Ticks()
    monkeypatch.setattr(gate, "time", ticks)
    shop.does["slow"] = lambda _: ticks.sleep(61)
    assert shop.run("a", "slow", "b", "c") == 3, "it, and those that follow it until the function is known as brief"
    assert shop.run("d", "e") == 1 + 1
    assert shop.run("f", "g") == 1
    assert set(shop.states().values()) == {"success"}


@BOTH
def test_a_function_is_brief_once_it_has_been_three_times_in_a_row(shop: Shop) -> None:
    shop.confect.gate._brevity._streaks.clear()
    assert shop.run("a", "b", "c") == 3
    assert shop.run("d", "e", "f") == 1


def test_brevity_counts_in_a_row_and_trouble_counts_for_long() -> None:
    runs = Brevity()
    for seconds in (0.001, 0.001, 0.006, 0.001, 0.001):
        runs.ran("f", seconds)
    assert not runs.is_brief("f")
    runs.ran("f", 0.001)
    assert runs.is_brief("f") and not runs.is_brief("g")
    runs.met_trouble("f")
    for _ in range(40):
        runs.ran("f", 0.001)
    assert not runs.is_brief("f")
    for _ in range(13):
        runs.ran("f", 0.001)
    assert runs.is_brief("f")


@BOTH
@pytest.mark.parametrize("asks_for", ["connection", "session", "factory of a factory"])
def test_whoever_gets_hold_of_the_connection_never_shares(shop: Shop, asks_for: str) -> None:
    confect = shop.confect

    class Books:
        pass

    class Shelf:
        pass

    def books(connection: sa.Connection) -> Books:
        return Books()

    def shelf(books: Books) -> Shelf:
        return Shelf()

    confect.provide(Books, books)
    confect.provide(Shelf, shelf)

    if asks_for == "connection":

        @confect.group("t").internal_mutation
        def asking(args: Label, connection: sa.Connection) -> None:
            shop.ran.append(args.label)
    elif asks_for == "session":

        @confect.group("t").internal_mutation
        def asking(args: Label, session: Session) -> None:
            shop.ran.append(args.label)
    else:

        @confect.group("t").internal_mutation
        def asking(args: Label, shelf: Shelf) -> None:
            shop.ran.append(args.label)

    brief(confect, asking)
    assert shop.run("a", "b", "c", function=asking) == 3
    shop.schedule("d", "f")
    shop.schedule("e", function=asking)
    before = shop.commits
    shop.loaded("d", "e", "f").run()
    assert shop.commits - before == 3
    assert shop.ran == ["a", "b", "c", "d", "e", "f"] and set(shop.states().values()) == {"success"}


@BOTH
def test_attempts_that_differ_do_not_share(shop: Shop) -> None:
    shop.schedule("a", "b", "c", "d")
    assert shop.confect.scheduler.reschedule(shop.ids["b"], Duration.zero)
    assert shop.confect.scheduler.reschedule(shop.ids["c"], Duration.zero)
    before = shop.commits
    shop.loaded("a", "b", "c", "d").run()
    assert shop.commits - before == 3
    assert shop.ran == ["a", "b", "c", "d"] and set(shop.states().values()) == {"success"}


@BOTH
def test_one_sees_nothing_of_another_in_its_context(shop: Shop) -> None:
    left: contextvars.ContextVar[str] = contextvars.ContextVar("left", default="nothing")
    found: list[str] = []

    def leaves(given: Given) -> None:
        found.append(left.get())
        left.set("something")
        here = shop.confect.scheduling()
        here.run_after(Duration.hours(1), shop.mark, {"label": "child"})

    shop.does |= dict.fromkeys("abc", leaves)
    assert shop.run("a", "b", "c") == 1
    assert found == ["nothing"] * 3
    assert {row.parent_id for row in shop.children()} == set(shop.ids.values()), "each is its own scheduler's"


@BOTH
@pytest.mark.parametrize("does", ["schedules", "cancels"])
def test_only_who_changes_rows_has_the_others_looked_at_again(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, does: str
) -> None:
    rows, alone = shop.confect.store.rows, []
    lock = rows.lock

    def noted(connection: Any, id: str, *args: Any, **kwargs: Any) -> bool:
        alone.append(id)
        return lock(connection, id, *args, **kwargs)

    def changes(given: Given) -> None:
        child = given.scheduler.run_after(Duration.hours(1), shop.mark, {"label": "child"})
        if does == "cancels":
            assert given.scheduler.cancel(child)

    monkeypatch.setattr(rows, "lock", noted)
    shop.does["a"] = changes
    assert shop.run("a", "b", "c") == 1
    assert alone == ([] if does == "schedules" else [shop.ids["b"], shop.ids["c"]])
    assert set(shop.states().values()) == {"success"} and len(shop.children()) == 1


@BOTH
def test_a_batch_that_names_a_row_twice_runs_it_once(shop: Shop) -> None:
    shop.schedule("a", "b", "c")
    shop.loaded("a", "b", "b", "c", "a").run()
    assert shop.ran == ["a", "b", "c"] and shop.marks() == ["a", "b", "c"]
    assert set(shop.states().values()) == {"success"}


# -- that each is by itself


@BOTH
def test_one_that_raises_takes_nobody_with_it(shop: Shop) -> None:
    def schedules_and_raises(given: Given) -> None:
        given.scheduler.run_after(Duration.zero, shop.mark, {"label": "child"})
        raise Declared("no")

    shop.does["c"] = schedules_and_raises
    assert shop.run("a", "b", "c", "d", "e") == 1
    assert shop.ran == ["a", "b", "c", "d", "e"], "once each"
    assert shop.marks() == ["a", "b", "d", "e"]
    assert shop.states() == {**dict.fromkeys("abde", "success"), "c": "failed"}
    error = shop.row("c").state.error
    assert error is not None and (error.tag, error.message) == ("Declared", "no")
    assert shop.results() == {**dict.fromkeys("abde", "SUCCESS"), "c": "FAILURE"}
    assert ("failure", "c", "failed", False) in shop.heard
    assert shop.published == []


@BOTH
def test_all_that_raise_each_by_its_own(shop: Shop) -> None:
    labels = [f"m{n}" for n in range(60)]
    shop.does |= dict.fromkeys(labels, raising(Declared("no")))
    shop.run(*labels)
    assert shop.ran == labels and shop.marks() == []
    assert {row.state.error.tag for row in map(shop.row, labels) if row.state.error} == {"Declared"}


@BOTH
def test_a_database_error_is_its_own(shop: Shop) -> None:
    shop.does["a"] = lambda given: given.db.table("marks").insert({"id": 77, "label": "first"})
    shop.does["b"] = lambda given: given.db.table("marks").insert({"id": 77, "label": "second"})
    assert shop.run("a", "b", "c") == 1
    assert shop.marks() == ["a", "c", "first"] and shop.ran == ["a", "b", "c"]
    error = shop.row("b").state.error
    assert error is not None and error.tag == "IntegrityError"
    assert shop.states() == {"a": "success", "b": "failed", "c": "success"}


@BOTH
@pytest.mark.parametrize("swallows", [True, False])
def test_one_whose_value_no_driver_takes(shop: Shop, swallows: bool) -> None:
    """Nothing of it has come to the server then, not even its savepoint."""

    def inserts(given: Given) -> None:
        with suppress(SQLAlchemyError, TypeError) if swallows else nullcontext():
            given.db.table("marks").insert({"id": 78, "label": object()})

    shop.does["b"] = inserts
    shop.run("a", "b", "c")
    assert shop.states() == {"a": "success", "b": "success" if swallows else "failed", "c": "success"}
    assert shop.marks() == ["a", *("b" for _ in range(swallows)), "c"]


@BOTH
def test_a_database_error_that_it_swallows_harms_nobody_else(shop: Shop) -> None:
    def swallows(given: Given) -> None:
        with suppress(DBAPIError):
            given.db.table("marks").insert({"id": 77, "label": "second"})

    shop.does["a"] = lambda given: given.db.table("marks").insert({"id": 77, "label": "first"})
    shop.does["b"] = swallows
    shop.run("a", "b", "c")
    # Alone, too, it could not commit on PostgreSQL, where the error has ended its transaction.
    alone = "failed" if shop.confect.store.database.dialect.changes_in_ctes else "success"
    assert shop.states() == {"a": "success", "b": alone, "c": "success"}
    assert shop.marks() == sorted(["a", "c", "first"] + ["b"] * (alone == "success"))


@pytest.mark.parametrize("store", ["sqlite"], indirect=True)
@pytest.mark.parametrize("swallows", [True, False])
def test_one_whose_error_ends_the_whole_transaction(shop: Shop, swallows: bool) -> None:
    with shop.confect.store.database.engine.begin() as connection:
        connection.exec_driver_sql(
            "CREATE TRIGGER refuse BEFORE INSERT ON marks WHEN NEW.label = 'bad' "
            "BEGIN SELECT RAISE(ROLLBACK, 'no'); END"
        )

    def bad(given: Given) -> None:
        with suppress(*[DBAPIError] * swallows):
            given.db.table("marks").insert({"label": "bad"})

    shop.does["c"] = bad
    shop.run("a", "b", "c", "d")
    assert shop.marks() == ["a", "b", "d"], "what it did itself went with its error, as it does alone"
    assert {shop.states()[label] for label in "abd"} == {"success"}
    assert sorted(said for said in shop.heard if said[1] in "abd") == [("success", x, "success", True) for x in "abd"]


@BOTH
def test_a_part_of_one_may_fail_alone(shop: Shop) -> None:
    def fails_inside(given: Given) -> None:
        with suppress(Declared):
            given.run_mutation(shop.mark, {"label": "inner fails"})
        given.run_mutation(shop.mark, {"label": "inner"})

    def schedules_and_raises(given: Given) -> None:
        given.scheduler.run_after(Duration.zero, shop.mark, {"label": "never"})
        raise Declared

    def nested_and_raises(given: Given) -> None:
        given.run_mutation(shop.mark, {"label": "inner of c"})
        raise Declared

    def schedules(given: Given) -> None:
        given.scheduler.run_after(Duration.zero, shop.mark, {"label": "child"})

    shop.does |= {"b": fails_inside, "inner fails": schedules_and_raises, "inner": schedules, "c": nested_and_raises}
    assert shop.run("a", "b", "c", "d") == 1
    assert shop.marks() == ["a", "b", "d", "inner"]
    assert shop.states() == {"a": "success", "b": "success", "c": "failed", "d": "success"}
    assert shop.published == [("child", True)]


@BOTH
def test_what_one_schedules_exists_and_is_published_if_it_committed_and_after_that(shop: Shop) -> None:
    def schedules(given: Given) -> None:
        given.scheduler.run_after(Duration.zero, shop.mark, {"label": "child"})
        assert shop.published == [], "nothing of this transaction is committed yet"

    def undoes(given: Given) -> None:
        schedules(given)
        raise Declared

    shop.does |= {"a": schedules, "b": undoes, "c": schedules}
    assert shop.run("a", "b", "c") == 1
    assert shop.published == [("child", True)] * 2
    assert {row.parent_id for row in shop.children()} == {shop.ids["a"], shop.ids["c"]}


@BOTH
def test_what_is_canceled_before_its_turn_never_starts(shop: Shop) -> None:
    shop.schedule("a", "b", "c")
    child = shop.loaded("a", "b", "c")
    assert shop.confect.scheduler.cancel(shop.ids["b"])
    child.run()
    assert shop.ran == ["a", "c"] and shop.marks() == ["a", "c"]
    assert shop.states() == {"a": "success", "b": "canceled", "c": "success"}
    assert shop.results()["b"] == "REVOKED"


@BOTH
def test_the_first_one_is_canceled_before_its_turn(shop: Shop) -> None:
    shop.schedule("a", "b", "c")
    child = shop.loaded("a", "b", "c")
    assert shop.confect.scheduler.cancel(shop.ids["a"])
    child.run()
    assert shop.ran == ["b", "c"] and shop.marks() == ["b", "c"]
    assert shop.states() == {"a": "canceled", "b": "success", "c": "success"}


@BOTH
@pytest.mark.parametrize("how", ["get", "query"])
def test_who_looks_at_rows_sees_those_that_have_run_as_ended(shop: Shop, how: str) -> None:
    """Whoever finds that all others have ended goes on: it must not happen that nobody does."""
    labels = ["a", "b", "c"]

    def am_last(given: Given) -> str:
        if how == "get":
            rows = [given.scheduler.get(shop.ids[label]) for label in labels]
            left = [row for row in rows if row is not None and row.state.kind.value == "pending"]
        else:
            table = given.db.table("_scheduled_functions")
            left = list(table.filter(lambda q: q.eq(q.field("state.kind"), "pending")).collect())
        return "last" if len(left) == 1 else f"{len(left)} left"

    shop.does |= dict.fromkeys(labels, am_last)
    shop.run(*labels)
    results = [shop.confect.app.AsyncResult(shop.ids[label]).result for label in labels]
    assert results == ["3 left", "2 left", "last"]
    assert shop.marks() == labels and set(shop.states().values()) == {"success"}


@BOTH
def test_one_cancels_another_of_the_same_transaction(shop: Shop) -> None:
    said: list[tuple[str, bool]] = []
    shop.does["b"] = lambda given: [said.append((x, given.scheduler.cancel(shop.ids[x]))) for x in ("a", "c")]
    shop.run("a", "b", "c")
    assert shop.states() == {"a": "success", "b": "success", "c": "canceled"}
    assert said[-2:] == [("a", False), ("c", True)], "what a run before said went with it"
    assert shop.marks() == ["a", "b"] and "c" not in shop.ran


@POSTGRESQL
@pytest.mark.parametrize("which", ["a", "b", "c"])
def test_who_cancels_one_waits_for_the_transaction_it_shares(shop: Shop, which: str) -> None:
    """One that has run, one that runs, and one whose turn has not come: none starts after its cancel said True."""
    said: list[tuple[bool, list[str]]] = []

    def cancel() -> None:
        said.append((shop.confect.scheduler.cancel(shop.ids[which]), list(shop.ran)))

    def during(_: Given) -> None:
        thread.start()
        thread.join(0.2)
        assert thread.is_alive() and not said

    thread = threading.Thread(target=cancel)
    shop.does["b"] = during
    assert shop.run("a", "b", "c") == 1
    thread.join(30)
    assert said == [(False, ["a", "b", "c"])]
    assert set(shop.states().values()) == {"success"} and shop.marks() == ["a", "b", "c"]


@POSTGRESQL
@pytest.mark.parametrize("how", ["pauses", "goes on and on"])
def test_who_cancels_one_does_not_wait_for_what_takes_long(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    if how == "goes on and on":
        with shop.confect.store.database.snapshot() as connection:
            if (connection.dialect.server_version_info or ()) < (17,):
                pytest.skip("PostgreSQL bounds a transaction from 17 on")
    monkeypatch.setattr(postgresql, "_IDLE_MS", 250)
    monkeypatch.setattr(postgresql, "_TRANSACTION_MS", 500)
    said: list[bool] = []
    thread = threading.Thread(target=lambda: said.append(shop.confect.scheduler.cancel(shop.ids["d"])))

    def long(given: Given) -> None:
        if shop.ran.count("b") > 1:
            return
        thread.start()
        until = time.monotonic() + 20
        while not said and time.monotonic() < until:
            if how == "pauses":
                time.sleep(0.05)
            else:
                given.db.table("marks").insert({"label": "more"})
        assert said == [True]

    shop.does["b"] = long
    shop.run("a", "b", "c", "d")
    assert said == [True] and "d" not in shop.ran
    assert shop.states() == {**dict.fromkeys("abc", "success"), "d": "canceled"}
    assert shop.marks() == ["a", "b", "c"]


@POSTGRESQL
def test_one_that_somebody_is_changing_at_the_beginning_is_looked_at_again(shop: Shop) -> None:
    shop.schedule("a", "b", "c")
    released: list[bool] = []

    def lets_go(_: Given) -> None:
        cancels.rollback()
        released.append(True)

    shop.does["a"] = lets_go
    child = shop.loaded("a", "b", "c")
    with shop.confect.store.database.engine.connect() as cancels:
        assert shop.confect.scheduler.using(cancels).cancel(shop.ids["b"])
        child.run()
    assert released == [True] and shop.ran == ["a", "b", "c"]
    assert set(shop.states().values()) == {"success"} and shop.marks() == ["a", "b", "c"]


@POSTGRESQL
def test_one_that_cancels_another_over_a_connection_of_its_own(shop: Shop) -> None:
    """It waits for its own transaction, until the database ends that."""

    def others(_: Given) -> None:
        if shop.ran.count("c") == 1:
            assert shop.confect.scheduler.cancel(shop.ids["b"])

    shop.does["c"] = others
    shop.run("a", "b", "c", "d")
    assert shop.states() == {**dict.fromkeys("acd", "success"), "b": "canceled"}
    assert shop.marks() == ["a", "c", "d"]
    assert {said for said in shop.heard if said[0] == "success"} == {("success", x, "success", True) for x in "acd"}


def locked_one_by_one(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if somebody had been changing each of the rows at the beginning: later others may change them."""
    monkeypatch.setattr(shop.confect.store.rows, "lock_together", lambda *_, **__: set())


@POSTGRESQL
@pytest.mark.parametrize("how", ["cancel", "reschedule"])
def test_one_is_changed_after_it_ran(shop: Shop, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    locked_one_by_one(shop, monkeypatch)
    scheduler = shop.confect.scheduler

    def others(_: Given) -> None:
        if shop.ran.count("d") == 1:
            changed = scheduler.cancel(id) if how == "cancel" else scheduler.reschedule(id, Duration.hours(1))
            assert changed

    shop.schedule("a", "b", "c", "d", "e")
    id = shop.ids["c"]
    shop.does["c"] = lambda given: given.scheduler.run_after(Duration.zero, shop.mark, {"label": "child"})
    shop.does["d"] = others
    shop.loaded("a", "b", "c", "d", "e").run()

    assert shop.states() == {**dict.fromkeys("abde", "success"), "c": "canceled" if how == "cancel" else "pending"}
    assert shop.marks() == ["a", "b", "d", "e"]
    assert shop.ran == ["a", "b", "c", "d", "e", "d", "e"], "those after it ran again, and nobody else"
    assert shop.transactions() == [{"a", "b"}, {"d"}, {"e"}]
    assert shop.published == []
    assert [said for said in shop.heard if said[1] == "c"] == []
    assert shop.results()["c"] == ("REVOKED" if how == "cancel" else "PENDING")


@POSTGRESQL
def test_a_failure_that_only_what_was_undone_has_caused_is_none(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """`c` collides with what `b` wrote; `b` is canceled, so that this never was."""
    locked_one_by_one(shop, monkeypatch)

    def collides(given: Given) -> None:
        if shop.ran.count("c") == 1:
            assert shop.confect.scheduler.cancel(shop.ids["b"])
        given.db.table("marks").insert({"id": 77, "label": "of c"})

    shop.does["b"] = lambda given: given.db.table("marks").insert({"id": 77, "label": "of b"})
    shop.does["c"] = collides
    shop.run("a", "b", "c", "d")
    assert shop.states() == {"a": "success", "b": "canceled", "c": "success", "d": "success"}
    assert shop.marks() == ["a", "c", "d", "of c"]


@POSTGRESQL
def test_a_commit_that_fails_fails_the_culprit_alone(shop: Shop, caplog: pytest.LogCaptureFixture) -> None:
    with shop.confect.store.database.engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE marks ADD CONSTRAINT once UNIQUE (label) DEFERRABLE INITIALLY DEFERRED")
        connection.exec_driver_sql("INSERT INTO marks (label) VALUES ('taken')")

    def collides(given: Given) -> None:
        given.db.table("marks").insert({"id": 77, "label": "of c"})

    def culprit(given: Given) -> None:
        given.db.table("marks").insert({"id": 77, "label": "taken"})

    shop.does |= {"b": culprit, "c": collides}
    with caplog.at_level("DEBUG", "confect_celery.events"):
        shop.run("a", "b", "c", "d")
    assert shop.states() == {"a": "success", "b": "failed", "c": "success", "d": "success"}
    assert shop.marks() == ["a", "c", "d", "of c", "taken"]
    assert shop.ran == ["a", "b", "c", "d"] * 2
    claimed = [vars(said)["confect_id"] for said in caplog.records if vars(said).get("confect_event") == "claimed"]
    assert claimed == list(shop.ids.values()), "what was undone counts as one run"
    assert [said[:2] for said in shop.heard if said[0] == "failure"] == [("failure", "b")]
    assert {said for said in shop.heard if said[0] == "success"} == {("success", x, "success", True) for x in "acd"}


@BOTH
def test_one_that_ran_into_the_end_of_the_stack_runs_again(shop: Shop) -> None:
    def deep(_: Given) -> None:
        if shop.ran.count("c") == 1:
            raise RecursionError

    shop.does["c"] = deep
    shop.run("a", "b", "c", "d")
    assert shop.ran == ["a", "b", "c", "c", "d"]
    assert set(shop.states().values()) == {"success"} and shop.marks() == ["a", "b", "c", "d"]
    assert [said[1] for said in shop.heard if said[0] == "failure"] == []


@BOTH
@pytest.mark.parametrize("at", ["a", "c"])
def test_a_child_that_ends_in_the_midst_leaves_nothing(shop: Shop, at: str) -> None:
    shop.does[at] = raising(SystemExit())
    shop.schedule("a", "b", "c", "d")
    with pytest.raises(SystemExit):
        shop.loaded("a", "b", "c", "d").run()
    assert shop.marks() == [] and set(shop.states().values()) == {"pending"}
    assert shop.heard == []
    del shop.does[at]
    shop.loaded("a", "b", "c", "d").run()
    assert shop.marks() == ["a", "b", "c", "d"] and set(shop.states().values()) == {"success"}


# -- a savepoint is begun with the first statement


@dataclass
class Quiet:
    """A mutation that executes nothing of itself, and what was executed on PostgreSQL meanwhile."""

    function: Any
    executed: list[str]
    savepoints: int = 0


@pytest.fixture
def quiet(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> Iterator[Quiet]:
    @shop.confect.group("t").internal_mutation(errors=(Declared,))
    def quietly(args: Label, db: DatabaseWriter, scheduler: Scheduler, run_mutation: MutationRunner) -> object:
        shop.ran.append(args.label)
        return shop.does.get(args.label, lambda _: None)(Given(db, scheduler, run_mutation))

    brief(shop.confect, quietly)
    it = Quiet(quietly, [])

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        it.executed.append(statement)

    dialect = shop.confect.store.database.dialect
    begin_savepoint = dialect.begin_savepoint

    def begin(connection: sa.Connection, name: str) -> None:
        it.savepoints += 1
        begin_savepoint(connection, name)

    monkeypatch.setattr(dialect, "begin_savepoint", begin)
    engine = shop.confect.store.database.engine
    event.listen(engine, "before_cursor_execute", note)
    yield it
    event.remove(engine, "before_cursor_execute", note)


@BOTH
def test_who_executes_nothing_has_none(shop: Shop, quiet: Quiet) -> None:
    assert shop.run("a", "b", "c", function=quiet.function) == 1
    assert quiet.savepoints == 0
    assert set(shop.states().values()) == {"success"} and set(shop.results().values()) == {"SUCCESS"}
    assert shop.run("d", "e", "f") == 1
    assert quiet.savepoints == 3


@BOTH
def test_who_executes_nothing_and_raises_takes_nobody_with_it(shop: Shop, quiet: Quiet) -> None:
    shop.schedule("a", "c", "e")
    shop.schedule("b", "d", function=quiet.function)
    shop.does["b"] = shop.does["d"] = raising(Declared("no"))
    before = shop.commits
    shop.loaded("a", "b", "c", "d", "e").run()
    assert shop.commits - before == 1 and shop.ran == ["a", "b", "c", "d", "e"]
    assert shop.marks() == ["a", "c", "e"]
    assert shop.states() == {**dict.fromkeys("ace", "success"), **dict.fromkeys("bd", "failed")}


@POSTGRESQL
def test_who_executes_nothing_is_undone_with_those_after_it(
    shop: Shop, quiet: Quiet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first that has a savepoint comes after it."""
    original, lost = shop.confect.store.rows.succeed_together, ["b"]

    def without(connection: sa.Connection, rows: Any, now: Any, *, may_commit: bool) -> set[str]:
        assert not may_commit, "others may have changed one"
        return original(connection, rows, now) - {shop.ids[lost.pop()] if lost else ""}

    locked_one_by_one(shop, monkeypatch)
    monkeypatch.setattr(shop.confect.store.rows, "succeed_together", without)
    shop.schedule("a", "c", "d")
    shop.schedule("b", function=quiet.function)
    shop.loaded("a", "b", "c", "d").run()
    assert shop.ran == ["a", "b", "c", "d", "b", "c", "d"]
    assert shop.marks() == ["a", "c", "d"] and set(shop.states().values()) == {"success"}


# -- its end


@POSTGRESQL
def test_its_end_and_its_commit_go_together(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[list[str]] = []

    def exchange(connection: sa.Connection, *steps: Any) -> Any:
        sent.append([step.text.split()[0] for step in steps])
        return libpq.exchange(connection, *steps)

    monkeypatch.setattr(postgresql, "exchange", exchange)
    assert shop.run("a", "b", "c") == 1
    assert sent[-1] == ["WITH", "COMMIT"] and set(shop.states().values()) == {"success"}
    sent.clear()
    shop.does["d"] = lambda given: given.scheduler.cancel(shop.ids["a"])
    assert shop.run("d", "e", "f") == 1
    assert ["WITH", "COMMIT"] not in sent, "one of them may have been canceled"
    assert set(shop.states().values()) == {"success"}


@BOTH
def test_what_is_changed_behind_its_back_has_each_run_by_itself(shop: Shop) -> None:
    def behind(given: Given) -> None:
        if shop.ran.count("c") == 1:
            raw: Any = given.db._connection.connection.driver_connection
            raw.execute("UPDATE _scheduled_functions SET attempt = attempt + 1 WHERE state = 'pending'")

    shop.does["c"] = behind
    assert shop.run("a", "b", "c", "d") == 4
    assert shop.marks() == ["a", "b", "c", "d"] and set(shop.states().values()) == {"success"}
    assert {said for said in shop.heard if said[0] == "success"} == {("success", x, "success", True) for x in "abcd"}


@BOTH
@pytest.mark.parametrize("what", ["many", "nested"])
def test_what_is_executed_otherwise_has_one_too(shop: Shop, quiet: Quiet, what: str) -> None:
    """Many rows go by the driver's own COPY, which SQLAlchemy tells nobody of; a nested mutation is a savepoint."""

    def writes(given: Given) -> None:
        if what == "many":
            given.scheduler.run_many([(Duration.hours(1), shop.mark, {"label": "child"})] * 3)
        else:
            given.run_mutation(shop.mark, {"label": "nested"})
        raise Declared("no")

    shop.does["b"] = writes
    assert shop.run("a", "b", "c", function=quiet.function) == 1
    assert shop.states() == {"a": "success", "b": "failed", "c": "success"}
    assert shop.children() == [] and shop.marks() == []


# -- what takes long, and what breaks


@contextmanager
def held(shop: Shop, sql: str, seconds: float) -> Iterator[threading.Event]:
    """Another connection does this, and commits it so many seconds after it was told that it is waited for."""
    engine = shop.confect.store.database.engine
    waited, ready, released = threading.Event(), threading.Event(), threading.Event()

    def hold() -> None:
        with engine.connect() as connection:
            connection.exec_driver_sql(sql)
            ready.set()
            waited.wait(30)
            time.sleep(seconds)
            released.set()
            connection.rollback()

    thread = threading.Thread(target=hold)
    thread.start()
    assert ready.wait(30)
    released.waited = waited  # type: ignore[attr-defined]
    try:
        yield released
    finally:
        waited.set()
        thread.join(30)


@POSTGRESQL
@pytest.mark.parametrize("swallows", [True, False])
def test_one_that_waits_for_a_lock_holds_up_nobody(shop: Shop, swallows: bool) -> None:
    with shop.confect.store.database.engine.begin() as connection:
        connection.exec_driver_sql("INSERT INTO marks (id, label) VALUES (77, 'held')")
    asked: list[float] = []
    heard: list[bool] = []

    def waits(given: Given) -> None:
        released.waited.set()  # type: ignore[attr-defined]
        began = time.monotonic()
        try:
            with suppress(*[DBAPIError] * swallows):
                given.db.table("marks").patch(77, {"label": "patched"})
        finally:
            asked.append(time.monotonic() - began)

    def after(*_: Any, **__: Any) -> None:
        heard.append(released.is_set())

    shop.does["c"] = waits
    with held(shop, "UPDATE marks SET label = 'other' WHERE id = 77", 2.5) as released:
        signals.task_success.connect(after)
        try:
            shop.run("a", "b", "c", "d")
        finally:
            signals.task_success.disconnect(after)
    assert shop.ran == ["a", "b", "c", "c", "d"]
    assert set(shop.states().values()) == {"success"} and shop.marks() == ["a", "b", "c", "d", "patched"]
    assert asked[0] < 1.0 < asked[1], "broken off at once; alone it waits as long as it must"
    assert heard == [False, False, True, True], "those before it were committed meanwhile"
    assert {"a", "b"} in shop.transactions()
    assert not shop.confect.gate._brevity.is_brief(shop.mark.name)


@POSTGRESQL
def test_one_whose_many_rows_cannot_be_written_at_once_runs_again(shop: Shop) -> None:
    """They go by the driver's own COPY, whose errors are the driver's."""

    def many(given: Given) -> None:
        released.waited.set()  # type: ignore[attr-defined]
        given.scheduler.run_many([(Duration.hours(1), shop.mark, {"label": "child"})] * 3)

    shop.does["b"] = many
    shop.schedule("a", "b", "c")
    with held(shop, "LOCK TABLE _scheduled_functions IN SHARE ROW EXCLUSIVE MODE", 1.0) as released:
        shop.loaded("b", "c").run()
    assert shop.ran[:2] == ["b", "b"], shop.row("b").state
    assert {shop.states()[x] for x in "bc"} == {"success"}
    assert len(shop.children()) == 3


@POSTGRESQL
@pytest.mark.parametrize("when", ["at a statement", "after the last statement"])
def test_a_connection_that_is_lost_loses_nothing(shop: Shop, when: str) -> None:
    def loses(given: Given) -> None:
        if shop.ran.count("c") > 1:
            return
        killed = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE state = 'idle in transaction'"
        assert shop.query(killed) == [(True,)]
        if when == "at a statement":
            given.db.table("marks").insert({"label": "more of c"})

    shop.does["c"] = loses
    shop.run("a", "b", "c", "d")
    assert shop.marks() == ["a", "b", "c", "d"] and set(shop.states().values()) == {"success"}
    assert [said for said in shop.heard if said[0] == "failure"] == []
    assert {said for said in shop.heard if said[0] == "success"} == {("success", x, "success", True) for x in "abcd"}


@POSTGRESQL
@pytest.mark.parametrize("then", ["writes", "raises", "ends"])
def test_one_that_waits_elsewhere_for_what_it_shares_a_transaction_with(shop: Shop, then: str) -> None:
    """`c` writes on a connection of its own what `a` has written: alone it would not wait."""
    engine, took = shop.confect.store.database.engine, []
    with engine.begin() as connection:
        connection.exec_driver_sql("INSERT INTO marks (id, label) VALUES (77, 'counted')")

    def writes(given: Given) -> None:
        began = time.monotonic()
        with engine.begin() as own:
            own.exec_driver_sql("SET LOCAL lock_timeout = 20000")
            own.exec_driver_sql("UPDATE marks SET label = label || ' by c' WHERE id = 77")
        took.append(time.monotonic() - began)
        if then == "writes":
            given.db.table("marks").insert({"label": "more of c"})
        if then == "raises" and len(took) == 1:
            raise Declared

    shop.does["a"] = lambda given: given.db.table("marks").patch(77, {"label": "by a"})
    shop.does["c"] = writes
    shop.run("a", "b", "c", "d")
    assert took[0] < 10, "it was let go on"
    noticed = "c" if then != "ends" else "cd"  # that the transaction is no more
    assert set(shop.states().values()) == {"success"} and shop.ran == ["a", "b", *noticed, "a", "b", "c", "d"]
    assert shop.marks() == sorted(["a", "b", "c", "d", "by a by c"] + ["more of c"] * (then == "writes"))


@BOTH
@pytest.mark.parametrize("broken", ["lock_together", "lock", "succeed_together"])
def test_a_statement_of_its_own_that_fails_has_each_run_by_itself(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    rows, fails = shop.confect.store.rows, [False, False, True] if broken == "lock" else [True]
    if broken == "lock":
        locked_one_by_one(shop, monkeypatch)
    original = getattr(rows, broken)

    def breaking(connection: sa.Connection, *args: Any, **kwargs: Any) -> Any:
        if fails and fails.pop(0):
            connection.exec_driver_sql("SELECT * FROM no_such_table")
        return original(connection, *args, **kwargs)

    monkeypatch.setattr(rows, broken, breaking, raising=True)
    shop.run("a", "b", "c", "d")
    assert shop.marks() == ["a", "b", "c", "d"] and set(shop.states().values()) == {"success"}
    assert sorted(shop.heard) == [("success", x, "success", True) for x in "abcd"]
