"""Transactions, callbacks, forks."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from confect_celery.store import Database, OwnTransaction, Store
from tests.support.waiting import wait_for


@pytest.fixture
def database(store: Store) -> Database:
    with store.database.transaction() as t:
        t.connection.execute(sa.text("CREATE TABLE marks (label VARCHAR(50))"))
    return store.database


def transient(database: Database) -> Exception:
    """What the driver raises when the same work may succeed the next time."""

    class OfPostgres(Exception):
        sqlstate = "40P01"

    kind = database.url.get_backend_name()
    said = {"sqlite": Exception("database is locked"), "mysql": Exception(1213, "Deadlock"), "postgresql": OfPostgres()}
    return OperationalError("x", {}, said[kind])


def labels(database: Database) -> list[str]:
    with database.snapshot() as connection:
        return list(connection.scalars(sa.text("SELECT label FROM marks ORDER BY label")))


def mark(connection: sa.Connection, label: str) -> None:
    connection.execute(sa.text("INSERT INTO marks VALUES (:label)"), {"label": label})


def test_callbacks_run_after_the_commit_and_never_after_a_rollback(database: Database) -> None:
    seen: list[list[str]] = []
    with database.transaction() as t:
        mark(t.connection, "kept")
        t.after_commit(lambda: seen.append(labels(database)))
        assert seen == []
    assert seen == [["kept"]]
    with pytest.raises(ZeroDivisionError), database.transaction() as t:
        mark(t.connection, "gone")
        t.after_commit(lambda: seen.append(["never"]))
        _ = 1 / 0
    assert seen == [["kept"]] and labels(database) == ["kept"]


def test_a_connection_serves_transactions_and_single_statements_in_turn(database: Database) -> None:
    for n in range(3):
        with database.statement() as t:
            mark(t.connection, f"single {n}")
            assert f"single {n}" in labels(database), "it has committed already"
        with pytest.raises(ZeroDivisionError), database.transaction() as t:
            mark(t.connection, f"gone {n}")
            _ = 1 / 0
        with database.transaction() as t:
            mark(t.connection, f"kept {n}")
            if database.url.get_backend_name() != "sqlite":
                assert f"kept {n}" not in labels(database)
    assert labels(database) == [f"{kind} {n}" for kind in ("kept", "single") for n in range(3)]


def test_a_callback_that_fails_does_not_undo_the_commit(database: Database) -> None:
    later: list[int] = []
    with database.transaction() as t:
        mark(t.connection, "kept")
        t.after_commit(lambda: 1 // 0)
        t.after_commit(lambda: later.append(1))
    assert labels(database) == ["kept"] and later == [1]


def test_a_savepoint_takes_its_callbacks_with_it(database: Database) -> None:
    seen: list[str] = []
    with database.transaction() as t:
        t.after_commit(lambda: seen.append("outer"))
        with pytest.raises(ZeroDivisionError), t.savepoint():
            mark(t.connection, "inner")
            t.after_commit(lambda: seen.append("inner"))
            _ = 1 / 0
        with t.savepoint():
            mark(t.connection, "second")
            t.after_commit(lambda: seen.append("second"))
    assert seen == ["outer", "second"] and labels(database) == ["second"]


def test_transient_errors_are_retried_and_others_are_not(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("confect_celery.store.database._FIRST_BACKOFF_SECONDS", 0.001)
    calls: list[int] = []

    def work(t: OwnTransaction) -> str:
        calls.append(1)
        mark(t.connection, f"try {len(calls)}")
        if len(calls) < 3:
            raise transient(database)
        return "done"

    assert database.retrying(work) == "done"
    assert len(calls) == 3 and labels(database) == ["try 3"]
    calls.clear()

    def broken(t: OwnTransaction) -> None:
        calls.append(1)
        raise OperationalError("x", {}, Exception("no such column"))

    with pytest.raises(OperationalError):
        database.retrying(broken)
    assert len(calls) == 1


def test_a_transient_error_is_given_up_in_the_end(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("confect_celery.store.database._FIRST_BACKOFF_SECONDS", 0.001)
    calls: list[int] = []

    def work(t: OwnTransaction) -> None:
        calls.append(1)
        raise transient(database)

    with pytest.raises(OperationalError):
        database.retrying(work)
    assert len(calls) == 5


def test_a_session_tells_of_its_commits_but_not_of_its_savepoints(database: Database) -> None:
    seen: list[str] = []
    with Session(database.engine) as session:
        t = database.join(session)
        assert t.after_commit(lambda: seen.append("first"))
        with session.begin_nested():
            mark(t.connection, "kept")
        assert seen == []
        session.commit()
        assert seen == ["first"]
        session.execute(sa.text("SELECT 1"))
        database.join(session).after_commit(lambda: seen.append("never"))
        session.rollback()
        session.execute(sa.text("SELECT 1"))
        session.commit()
    assert seen == ["first"]


def test_a_savepoint_of_a_session_takes_its_callbacks_with_it(database: Database) -> None:
    seen: list[str] = []
    with Session(database.engine) as session:

        def note(what: str) -> None:
            database.join(session).after_commit(lambda: seen.append(what))

        note("outer")
        with session.begin_nested() as undone:
            note("undone")
            with session.begin_nested():
                note("released into what is undone")
            undone.rollback()
        with session.begin_nested():
            note("released")
        session.commit()
    assert seen == ["outer", "released"]


def test_a_bare_connection_cannot_tell(database: Database) -> None:
    with database.engine.connect() as connection:
        assert database.join(connection).after_commit(lambda: None) is False
    with pytest.raises(TypeError, match="Connection or Session"):
        database.join("nothing")


def test_children_forked_while_threads_write_find_no_lock(tmp_path: Path) -> None:
    """Before the fork gate existed the children found the database locked, each for the whole timeout."""
    database = Store(f"sqlite:///{tmp_path}/fork.db").database
    with database.transaction() as t:
        t.connection.execute(sa.text("CREATE TABLE marks (label VARCHAR(50))"))
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            with database.transaction() as t:
                mark(t.connection, "parent")

    threads = [threading.Thread(target=write) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        children = []
        for n in range(8):
            pid = os.fork()
            if pid == 0:
                status = 1
                try:
                    with database.transaction() as t:
                        mark(t.connection, f"child {n}")
                    status = 0
                finally:
                    os._exit(status)
            children.append(pid)
        ended: dict[int, int] = {}

        def all_ended() -> bool:
            for pid in children:
                if pid not in ended:
                    done, status = os.waitpid(pid, os.WNOHANG)
                    if done:
                        ended[pid] = status
            return len(ended) == len(children)

        wait_for(all_ended, within=20, what="the children")
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert set(ended.values()) == {0}
    assert {label for label in labels(database) if label != "parent"} == {f"child {n}" for n in range(8)}
    with database.snapshot() as connection:
        assert connection.exec_driver_sql("PRAGMA integrity_check").scalar() == "ok"
    database.dispose()


def test_a_statement_of_its_own_outlives_the_pools_connection(database: Database) -> None:
    """The server restarted since that was last used: the driver says so in its own words."""
    numbers = {"mysql": "SELECT CONNECTION_ID()", "postgresql": "SELECT pg_backend_pid()"}
    kind = database.url.get_backend_name()
    if kind in numbers:  # SQLite has no server to lose
        with database.autocommit() as connection:
            number = connection.execute(sa.text(numbers[kind])).scalar_one()
        killer = sa.create_engine(database.engine.url, isolation_level="AUTOCOMMIT")
        with killer.connect() as connection:
            end = f"KILL {number}" if kind == "mysql" else f"SELECT pg_terminate_backend({number})"
            connection.execute(sa.text(end))
        killer.dispose()

    database.retrying(lambda t: mark(t.connection, "x"), single=True)
    assert labels(database) == ["x"]
