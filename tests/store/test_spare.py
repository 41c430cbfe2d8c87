"""The connection that a process keeps between its uses."""

from __future__ import annotations

import os
import threading

import pytest
import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.exc import OperationalError

from confect_celery import Confect, Duration
from confect_celery.metrics import Events
from confect_celery.store import Database, Store
from tests.support.waiting import wait_for

pytestmark = pytest.mark.parametrize("store", ["postgresql"], indirect=True)


@pytest.fixture
def database(store: Store) -> Database:
    return store.database


def server_process(connection: sa.Connection) -> int:
    number: int = connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one()
    return number


def server_transaction(connection: sa.Connection) -> int:
    number: int = connection.exec_driver_sql("SELECT txid_current()").scalar_one()
    return number


def open_connections(database: Database) -> int:
    pool: sa.QueuePool = database.engine.pool  # type: ignore[assignment]
    return pool.checkedin() + pool.checkedout()


def end_on_the_server(database: Database, *numbers: int) -> None:
    killer = sa.create_engine(database.engine.url, isolation_level="AUTOCOMMIT")
    with killer.connect() as connection:
        for number in numbers:
            connection.exec_driver_sql(f"SELECT pg_terminate_backend({number}, 5000)")
    killer.dispose()


def test_it_serves_whatever_comes_next_in_the_way_that_this_needs(database: Database) -> None:
    served = set()
    for _ in range(2):
        with database.autocommit() as connection:
            served.add(server_process(connection))
            assert server_transaction(connection) != server_transaction(connection)
        with database.transaction() as transaction:
            served.add(server_process(transaction.connection))
            assert server_transaction(transaction.connection) == server_transaction(transaction.connection)
        with database.statement() as transaction:
            served.add(server_process(transaction.connection))
            assert server_transaction(transaction.connection) != server_transaction(transaction.connection)
        with database.snapshot() as connection:
            served.add(server_process(connection))
            assert server_transaction(connection) == server_transaction(connection)
        with database.keeping_a_connection(), database.autocommit() as connection:
            served.add(server_process(connection))
    assert len(served) == 1 and open_connections(database) == 1


def test_what_an_exception_left_goes_back_to_the_pool(database: Database) -> None:
    with pytest.raises(ZeroDivisionError), database.statement() as transaction:
        transaction.connection.exec_driver_sql("BEGIN")
        _ = 1 / 0
    with database.autocommit() as connection:
        assert server_transaction(connection) != server_transaction(connection)
    assert open_connections(database) == 1


def test_one_that_was_lost_and_nobody_said_so_connects_anew(database: Database) -> None:
    for _ in range(2):
        with database.autocommit() as connection, pytest.raises(OperationalError):
            connection.exec_driver_sql("SELECT pg_terminate_backend(pg_backend_pid())")
        with database.transaction() as transaction:
            assert server_transaction(transaction.connection) == server_transaction(transaction.connection)
        with database.statement() as transaction:
            assert server_transaction(transaction.connection) != server_transaction(transaction.connection)
    assert open_connections(database) == 1


def test_threads_never_share_it_and_one_is_kept(database: Database) -> None:
    inside, go_on = threading.Barrier(4, timeout=20), threading.Event()
    served: list[int] = []

    def use() -> None:
        with database.statement() as transaction:
            served.append(server_process(transaction.connection))
            inside.wait()
            go_on.wait(20)

    threads = [threading.Thread(target=use) for _ in range(3)]
    for thread in threads:
        thread.start()
    inside.wait()
    assert len(set(served)) == 3
    go_on.set()
    for thread in threads:
        thread.join()
    assert database.engine.pool.checkedout() == 1  # type: ignore[attr-defined]


def test_after_trouble_it_is_not_trusted_and_one_try_more_is_enough(database: Database) -> None:
    class Told(Events):
        retries = 0

        def database_retry(self, error: Exception) -> None:
            self.retries += 1

    database.events = told = Told()
    with database.autocommit() as kept, database.transaction() as other:
        numbers = server_process(kept), server_process(other.connection)
    end_on_the_server(database, *numbers)
    with database.engine.connect() as connection, pytest.raises(sa.exc.OperationalError):
        server_process(connection)
    assert database.retrying(lambda t: server_process(t.connection), single=True) not in numbers
    assert told.retries == 0, "the one that was kept is as old as the one that was lost"


def test_a_forked_child_has_one_of_its_own_and_leaves_its_parents_alone(database: Database) -> None:
    with database.statement() as transaction:
        parents = server_process(transaction.connection)
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            with database.statement() as transaction:
                own = server_process(transaction.connection)
            database.dispose()
            status = 0 if own != parents else 2
        finally:
            os._exit(status)
    ended: list[int] = []

    def has_ended() -> bool:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            ended.append(status)
        return bool(done)

    wait_for(has_ended, within=20, what="the child")
    assert ended == [0]
    with database.statement() as transaction:
        assert server_process(transaction.connection) == parents


def test_it_ends_with_the_engine_that_it_was_of(database: Database) -> None:
    with database.statement() as transaction:
        first, raw = server_process(transaction.connection), transaction.connection.connection.driver_connection
        database.dispose()  # another thread's, in the midst of ours
    with database.statement() as transaction:
        second = server_process(transaction.connection)
    assert second != first
    assert raw is not None
    raw.close()  # it is the old pool's
    database.dispose()
    is_there = sa.text("SELECT count(*) FROM pg_stat_activity WHERE pid = :pid")
    with database.autocommit() as connection:
        wait_for(lambda: connection.scalar(is_there, {"pid": second}) == 0, within=10, what="its end")


def test_calls_that_follow_each_other_lend_nothing_from_the_pool(confect: Confect) -> None:
    @confect.group("t").internal_action
    def act() -> None: ...

    id = confect.scheduler.run_after(Duration.hours(1), act)
    lent: list[object] = []
    event.listen(confect.store.database.engine, "checkout", lambda *told: lent.append(told))
    for _ in range(3):
        confect.scheduler.run_after(Duration.hours(1), act)
    assert confect.scheduler.cancel(id)
    assert confect.scheduler.get(id) is not None
    assert not lent
