"""Statements straight through libpq: how many round trips they take, and that nothing else is different."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from celery.exceptions import SoftTimeLimitExceeded
from pydantic import BaseModel
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError

from confect_celery import (
    Confect,
    DatabaseWriter,
    DateTime,
    Duration,
    MutationRunner,
    ScheduledFunctionId,
    Scheduler,
    StateKind,
)
from confect_celery.metrics import Events
from confect_celery.store import SharedTransaction, Store
from confect_celery.store.dialects.libpq import Step, exchange, execute
from confect_celery.store.prepared import Prepared
from confect_celery.testing import harness

SECOND = Duration.seconds(1)
pytestmark = pytest.mark.parametrize("store", ["postgresql"], indirect=True)
PREPARES = pytest.mark.skipif(psycopg.pq.version() < 170000, reason="a libpq before 17 cannot drop what is not there")


ALONE_OR_NOT = pytest.mark.parametrize("alone", [True, False], ids=["as every caller's is", "as several are"])
_NUMBER = sa.bindparam("n", type_=sa.Integer)
PLUS_ONE = Prepared(sa.select(_NUMBER + sa.literal_column("1")))
SLEEP = Prepared(sa.select(sa.func.pg_sleep(_NUMBER, type_=sa.String)))


class Label(BaseModel):
    label: str


def executed(connection: sa.Connection, statement: Prepared, n: int, *, alone: bool) -> list[tuple[Any, ...]]:
    if alone:
        return execute(connection, statement, {"n": n}).rows
    return exchange(connection, Step(*statement.numbered(connection.dialect, {"n": n})))[0].rows


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """Calling it tells how often an answer of the server's was waited for since the last call."""
    told, wait = 0, psycopg.Connection.wait

    def spied(generator: Any) -> Any:
        nonlocal told
        ready, asked = None, 0
        while True:
            try:
                wanted = generator.send(ready)
            except StopIteration as end:
                told += asked > 0
                return end.value
            asked, ready = asked + 1, (yield wanted)

    monkeypatch.setattr(psycopg.Connection, "wait", lambda self, generator: wait(self, spied(generator)))

    def since() -> int:
        nonlocal told
        count, told = told, 0
        return count

    return since


def run(confect: Confect, id: ScheduledFunctionId, name: str) -> Any:
    return confect.gate.run(id, 0, name)


def test_how_many_round_trips_a_job_takes(confect: Confect, waits: Callable[[], int]) -> None:
    group = confect.group("t")

    @group.internal_mutation
    def mutates(args: Label) -> None: ...

    @group.internal_action
    def acts(args: Label) -> None: ...

    with harness(confect) as shop:
        took = {}
        for function in (mutates, acts, mutates, acts):  # a connection looks at what it uses for the first time
            waits()
            id = confect.scheduler.run_after(SECOND, function, {"label": "x"})
            took["call"] = waits()
            shop.clock.advance(SECOND)
            waits()
            run(confect, id, function.name)
            took[function.kind] = waits()
            assert confect.scheduler.get(id).state.kind is StateKind.SUCCESS  # type: ignore[union-attr]
            waits()
            confect.scheduler.cancel(id)
            took["cancel"] = waits()
    assert took == {"call": 1, "mutation": 2, "action": 2, "cancel": 1}


def test_a_mutation_alone_in_its_batch_needs_no_cursor(confect: Confect, monkeypatch: pytest.MonkeyPatch) -> None:
    executed, execute = [], psycopg.Cursor.execute

    @confect.group("t").internal_mutation
    def mutates(args: Label) -> None: ...

    def heard(self: Any, query: Any, *args: Any, **kwargs: Any) -> Any:
        executed.append(str(query))
        return execute(self, query, *args, **kwargs)

    store = confect.store
    with harness(confect) as shop:
        id = confect.scheduler.run_after(SECOND, mutates, {"label": "x"})
        shop.clock.advance(SECOND)
        row = store.database.reading(lambda connection: store.rows.load(connection, id, 0))
        monkeypatch.setattr(psycopg.Cursor, "execute", heard)
        confect.gate.run(id, 0, mutates.name, row)
        assert executed == [], "BEGIN goes with the lock, and COMMIT with the end"
        assert confect.scheduler.get(id).state.kind is StateKind.SUCCESS  # type: ignore[union-attr]


def test_a_write_takes_one_and_in_a_shared_transaction_its_savepoint_with_it(
    confect: Confect, waits: Callable[[], int]
) -> None:
    store, rows = confect.store, []
    with harness(confect) as shop:
        group = confect.group("t")

        @group.internal_mutation
        def mutates(args: Label) -> None: ...

        ids = [confect.scheduler.run_after(SECOND, mutates, {"label": "x"}) for _ in range(3)]
        shop.clock.advance(SECOND)
        rows = list(store.database.reading(lambda connection: store.rows.load_many(connection, ids)).values())
    took = []
    for _ in range(2):  # a connection looks at what it uses for the first time
        shared = SharedTransaction(store.database, store.rows, relaxed=False)
        for row in rows:
            waits()
            part = shared.enter(row, rows)
            assert part is not None
            table = DatabaseWriter(part.connection, store.catalog, lambda id: False).table("marks")
            id = table.insert({"id": len(took), "label": "x"})
            table.patch(id, {"label": "y"})
            assert table.get(id).label == "y" and shared.stands(part, None)
            took.append(waits())
        shared.abandon(RuntimeError())
    assert took[3:] == [4, 3, 3], "the first has the lock of all, and each a write, a change and a look"


def test_what_fails_keeps_the_rest_from_happening(store: Store) -> None:
    with store.database.autocommit() as connection:
        exchange(connection, Step("CREATE TABLE once (n int PRIMARY KEY)"))
        two = [Step("INSERT INTO once VALUES ($1::int)", [n]) for n in (1, 2)]
        with pytest.raises(IntegrityError) as raised:
            exchange(connection, two[0], two[0], two[1])
        assert raised.value.statement == two[0].text
        assert exchange(connection, Step("SELECT n FROM once"))[0].rows == [], "they are one transaction"
        assert [answer.rowcount for answer in exchange(connection, *two)] == [1, 1]
        assert exchange(connection, Step("SELECT n FROM once ORDER BY n"))[0].rows == [(1,), (2,)]


def test_a_commit_that_fails_fails_the_mutation(confect: Confect) -> None:
    with confect.store.database.autocommit() as connection:
        connection.exec_driver_sql("ALTER TABLE marks ADD UNIQUE (label) DEFERRABLE INITIALLY DEFERRED")
        connection.exec_driver_sql("INSERT INTO marks (label) VALUES ('taken')")

    @confect.group("t").internal_mutation
    def mark(args: Label, db: DatabaseWriter) -> None:
        db.table("marks").insert({"label": args.label})

    with harness(confect) as shop:
        confect.scheduler.run_after(SECOND, mark, {"label": "taken"})
        (row,) = shop.run_all()
    assert row.state.kind is StateKind.FAILED and row.state.error is not None
    assert row.state.error.tag == "IntegrityError"


def test_a_mutation_whose_row_is_canceled_meanwhile_leaves_nothing(confect: Confect) -> None:
    def cancel_from_elsewhere(id: str) -> bool:
        with confect.store.database.statement() as other:
            return confect.store.rows.cancel(other.connection, id, confect.clock.now())

    @confect.group("t").internal_mutation
    def mark(args: Label, db: DatabaseWriter, scheduler: Scheduler) -> None:
        db.table("marks").insert({"label": args.label})
        assert cancel_from_elsewhere(ids[0])

    ids: list[ScheduledFunctionId] = []
    with harness(confect) as shop:
        ids.append(confect.scheduler.run_after(SECOND, mark, {"label": "x"}))
        assert shop.run_all() == []
        row = confect.scheduler.get(ids[0])
    assert row is not None and row.state.kind is StateKind.CANCELED
    with confect.reader() as db:
        assert db.table("marks").collect() == []


@ALONE_OR_NOT
def test_what_was_cut_short_leaves_its_connection_to_nobody(store: Store, alone: bool) -> None:
    def too_long(*_: Any) -> None:
        raise SoftTimeLimitExceeded

    before = signal.signal(signal.SIGALRM, too_long)
    try:
        with pytest.raises(SoftTimeLimitExceeded), store.database.autocommit() as connection:
            raw: Any = connection.connection.driver_connection
            executed(connection, SLEEP, 0, alone=alone)  # it is prepared now
            signal.setitimer(signal.ITIMER_REAL, 0.2)
            executed(connection, SLEEP, 60, alone=alone)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert raw.closed
    with store.database.autocommit() as connection:
        assert exchange(connection, Step("SELECT 2"))[0].rows == [(2,)]


@ALONE_OR_NOT
@pytest.mark.parametrize("how", ["the server ends it", "the network cuts it", "the network sends no more"])
def test_a_connection_that_was_lost_meanwhile_is_an_error_at_once(store: Store, how: str, alone: bool) -> None:
    with pytest.raises(OperationalError) as raised, store.database.autocommit() as connection:
        raw: Any = connection.connection.driver_connection
        executed(connection, PLUS_ONE, 1, alone=alone)
        if how == "the server ends it":
            with store.database.engine.connect() as other:
                other.exec_driver_sql("SELECT pg_terminate_backend(%s, 5000)", (raw.info.backend_pid,))
        else:
            cut = socket.socket(fileno=os.dup(raw.fileno()))
            cut.shutdown(socket.SHUT_RDWR if how == "the network cuts it" else socket.SHUT_WR)
            cut.close()
        if alone:
            executed(connection, PLUS_ONE, 1, alone=alone)
        exchange(connection, Step("SELECT $1::int", [1]), Step("SELECT $1::int", [2]))
    assert raised.value.connection_invalidated and raw.closed


def test_a_connection_that_is_lost_is_a_trouble_and_the_work_is_done_again(store: Store) -> None:
    before, tries = store.database.troubles, []

    def work(transaction: Any) -> Any:
        tries.append(transaction)
        if len(tries) == 1:
            exchange(transaction.connection, Step("SELECT pg_terminate_backend(pg_backend_pid())"))
        return exchange(transaction.connection, Step("SELECT 1"))[0].rows

    assert store.database.retrying(work, single=True) == [(1,)]
    assert len(tries) == 2 and store.database.troubles > before


@PREPARES
def test_each_is_prepared_once_a_connection(confect: Confect) -> None:
    """However often the connection is given back and taken again."""

    def prepared() -> list[tuple[Any, ...]]:
        with confect.store.database.autocommit() as connection:
            found = connection.exec_driver_sql(
                "SELECT name, prepare_time FROM pg_prepared_statements WHERE name LIKE 'confect%%' ORDER BY name"
            )
            return [tuple(row) for row in found]

    @confect.group("t").internal_action
    def act(args: Label) -> None: ...

    with confect.redirected(publish=lambda _: None):
        assert confect.scheduler.cancel(confect.scheduler.run_after(SECOND, act, {"label": "x"}))
        before = prepared()
        for _ in range(3):
            assert confect.scheduler.cancel(confect.scheduler.run_after(SECOND, act, {"label": "x"}))
    assert len(before) >= 2 and prepared() == before


@PREPARES
@ALONE_OR_NOT
def test_a_pooler_that_gives_us_another_session_costs_one_try(store: Store, alone: bool) -> None:
    tries = []
    with store.database.autocommit() as connection:
        executed(connection, PLUS_ONE, 1, alone=alone)
        raw: Any = connection.connection.driver_connection
        raw.execute("DEALLOCATE ALL")

    def work(transaction: Any) -> Any:
        tries.append(transaction)
        return executed(transaction.connection, PLUS_ONE, 1, alone=alone)

    assert store.database.retrying(work, single=True) == [(2,)]
    assert len(tries) == 2
    with store.database.autocommit() as connection:  # it may be so each time
        assert executed(connection, PLUS_ONE, 1, alone=alone) == [(2,)]
        assert not connection.exec_driver_sql("SELECT * FROM pg_prepared_statements").all()


@PREPARES
def test_what_another_has_prepared_by_our_name_is_in_nobodys_way(store: Store) -> None:
    step = Step("SELECT $1::int + 1", [1])
    with store.database.autocommit() as connection:
        exchange(connection, step)
        names = connection.exec_driver_sql("SELECT name FROM pg_prepared_statements WHERE statement LIKE '%%+ 1'").all()
        connection.exec_driver_sql("DEALLOCATE ALL")
        connection.exec_driver_sql(f"PREPARE {names[0][0]}(int) AS {step.text}")
        assert exchange(connection, step)[0].rows == [(2,)]


@pytest.mark.parametrize(
    "how", ["rolls back", "rolls a part back", "drops a table", "alters one", "deallocates", "behind our back"]
)
def test_psycopg_may_drop_what_is_prepared(confect: Confect, how: str) -> None:
    """It does so after what may have dropped a table, if it has prepared anything itself: 26000 would be the answer."""
    fails = []

    @confect.group("t").internal_mutation
    def nested(args: Label) -> None:
        raise ValueError(args.label)

    @confect.group("t").internal_mutation
    def look(args: Label, connection: sa.Connection, run_mutation: MutationRunner) -> None:
        for _ in range(10):
            connection.exec_driver_sql("SELECT 1 + 1")  # psycopg prepares what it meets often
        if how == "rolls a part back":
            with suppress(ValueError):
                run_mutation(nested, {"label": "x"})
        elif how == "drops a table":
            connection.exec_driver_sql("DROP TABLE IF EXISTS no_such_table")
        elif how == "alters one":
            connection.exec_driver_sql("ALTER TABLE IF EXISTS no_such_table ADD id integer")
        elif how == "deallocates":
            connection.exec_driver_sql("DEALLOCATE ALL")
        elif how == "behind our back":
            connection.connection.driver_connection.execute("DEALLOCATE ALL")  # type: ignore[union-attr]
        connection.exec_driver_sql("SELECT 1")
        if how == "rolls back":
            raise ValueError("as it should")

    confect.store.database.events = type("Told", (Events,), {"database_retry": lambda _, error: fails.append(error)})()
    with harness(confect) as shop:
        for _ in range(4):
            confect.scheduler.run_after(SECOND, look, {"label": "x"})
            (row,) = shop.run_all()
            assert row.state.kind is (StateKind.FAILED if how == "rolls back" else StateKind.SUCCESS)
    assert len(fails) == (how == "behind our back" and psycopg.pq.version() >= 170000), "once a connection"


@PREPARES
@pytest.mark.parametrize("how", ["kept", "psycopg's"])
def test_a_column_of_another_type_costs_a_mutation_one_try(confect: Confect, how: str) -> None:
    """PostgreSQL refuses what was prepared for the columns as they were: nothing that the mutation did wrong."""
    tries, seen = 0, []

    @confect.group("t").internal_mutation
    def looks(args: Label, db: DatabaseWriter, connection: sa.Connection) -> None:
        nonlocal tries
        tries += 1
        if how == "kept":
            seen.append(db.table("marks").get(1).label)
        else:
            seen.append(connection.exec_driver_sql("SELECT * FROM marks").one().label)

    def look() -> StateKind:
        id = confect.scheduler.run_after(SECOND, looks, {"label": "x"})
        shop.clock.advance(SECOND)
        run(confect, id, looks.name)
        return confect.scheduler.get(id).state.kind  # type: ignore[union-attr]

    with harness(confect) as shop, confect.store.database.keeping_a_connection():
        with confect.store.database.transaction() as transaction:
            transaction.connection.exec_driver_sql("INSERT INTO marks (id, label) VALUES (1, '7')")
        assert {look() for _ in range(10)} == {StateKind.SUCCESS}
        with confect.store.database.engine.begin() as another:
            another.exec_driver_sql("ALTER TABLE marks ALTER label TYPE varchar(70)")
            another.exec_driver_sql("ALTER TABLE marks ADD more integer")
        assert look() is StateKind.SUCCESS
    assert tries == 12 and seen == ["7"] * 11


def test_where_the_shop_wants_nothing_prepared_nothing_is(store: Store) -> None:
    with store.database.autocommit() as connection:
        raw: Any = connection.connection.driver_connection
        raw.prepare_threshold = None
        assert not store.rows.cancel(connection, "no-such-row", DateTime.now())
        assert executed(connection, PLUS_ONE, 6, alone=True) == executed(connection, PLUS_ONE, 6, alone=False) == [(7,)]
        assert not connection.exec_driver_sql("SELECT * FROM pg_prepared_statements").all()
        raw.prepare_threshold = 5
        assert not store.rows.cancel(connection, "no-such-row", DateTime.now())
        assert len(connection.exec_driver_sql("SELECT * FROM pg_prepared_statements").all()) == 1
        assert executed(connection, PLUS_ONE, 6, alone=True) == [(7,)]
        raw.execute("DEALLOCATE ALL")
        raw.prepare_threshold = None
        assert executed(connection, PLUS_ONE, 6, alone=True) == [(7,)], "it goes by no name any more"


def test_a_connection_with_an_isolation_of_its_own_keeps_it(confect: Confect) -> None:
    database, seen = confect.store.database, []

    @confect.group("t").internal_mutation
    def look(args: Label, connection: sa.Connection) -> None:
        seen.append(connection.exec_driver_sql("SHOW transaction_isolation").scalar_one())

    def set_up(raw: Any, _record: Any) -> None:
        raw.isolation_level = psycopg.IsolationLevel.SERIALIZABLE

    database.dispose()
    sa.event.listen(database.engine, "connect", set_up)
    with harness(confect) as shop:
        confect.scheduler.run_after(SECOND, look, {"label": "x"})
        (row,) = shop.run_all()
    assert row.state.kind is StateKind.SUCCESS and seen == ["serializable"]


def test_statements_wait_as_psycopg_waits(store: Store) -> None:
    """A statement that takes its time can be canceled, by a time limit of the server's for example."""
    with store.database.autocommit() as connection, pytest.raises(DBAPIError) as raised:
        exchange(connection, Step("SET statement_timeout = 50"), Step("SELECT pg_sleep(60)"))
    assert isinstance(raised.value.orig, psycopg.errors.QueryCanceled)
