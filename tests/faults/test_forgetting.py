"""PostgreSQL crashes and forgets that what was held has begun: nothing starts twice, and who still knows makes it true.

The server waits for the disk as it does by default, but for ten seconds flushes nothing that nobody waits for: what
began is surely forgotten. Each test looks in the table that it was.
"""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Iterator, Sequence

import pytest
import sqlalchemy as sa

from confect_celery import Duration
from tests.support.databases import PostgresServer, new_database, open_directory
from tests.support.holding import LATER, Shop
from tests.support.waiting import wait_for

TRIES = 5
"""The server's writer sleeps for ten seconds at a time, but may wake just then."""

FORGOTTEN = ("pending", 1, -1)


class Forgetful(PostgresServer):
    """With fsync on, and a writer that sleeps for as long as it can."""

    def __init__(self, directory: object) -> None:
        super().__init__(directory)  # type: ignore[arg-type]
        argv = self.process.argv
        argv[argv.index("fsync=off")] = "wal_writer_delay=10s"

    def crashes(self) -> None:
        """Every process of the server ends at once, and it is started again."""
        self.process.stop(with_signal=signal.SIGQUIT)
        self.start()

    def loses_a_process(self) -> None:
        """One of its processes is killed; it ends the others, and recovers."""
        with self.asking() as connection:
            pid: int = connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one()
            self._kill(pid)

    def _kill(self, pid: int) -> None:
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda: not os.path.exists(f"/proc/{pid}"), what="its death")
        wait_for(self._recovered, within=20, what="the server to have recovered")

    def _recovered(self) -> bool:
        log = self.process.output()
        ended = log.rfind("terminating any other active server processes")
        return log.find("ready to accept connections", ended) > 0

    def restarts(self) -> None:
        """In order."""
        self.stop()
        self.start()

    def asking(self) -> sa.Connection:
        """A connection of nobody's."""
        engine = sa.create_engine(self.url(), isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
        return engine.connect()


@pytest.fixture(scope="module")
def server() -> Iterator[Forgetful]:
    directory = open_directory()
    server = Forgetful(directory)
    server.start()
    yield server
    server.stop()
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def shop(server: Forgetful) -> Iterator[Shop]:
    with new_database(server) as url:
        shop = Shop(url)
        shop.store.migrate()
        shop.wait_until_all_is_kept()
        yield shop
        shop.close()


CRASHES = pytest.mark.parametrize("crash", [Forgetful.crashes, Forgetful.loses_a_process])


def looks(server: Forgetful, shop: Shop, ids: Sequence[str]) -> list[tuple[str, int, int]]:
    """The rows, by a connection of nobody's."""
    engine = sa.create_engine(shop.store.database.url, poolclass=sa.NullPool)
    c = shop.store.table.c
    with engine.connect() as connection:
        rows = connection.execute(sa.select(c.id, c.state, c.attempt, c.deliveries).where(c.id.in_(ids)))
        found = {row.id: (row.state, row.attempt, row.deliveries) for row in rows}
    return [found[id] for id in ids]


def until_it_forgets(shop: Shop, attempt: Callable[[list[str]], bool]) -> list[str]:
    """Do it with new rows until the server has forgotten; those rows."""
    for _ in range(TRIES):
        shop.ran.clear()
        ids = shop.schedule(*["action"] * 6)
        if attempt(ids):
            return ids
    raise AssertionError(f"{TRIES} times the server has forgotten nothing")


@CRASHES
def test_what_may_have_begun_fails_where_its_worker_is_lost_with_the_server(
    server: Forgetful, shop: Shop, crash: Callable[[Forgetful], None]
) -> None:
    def attempt(ids: list[str]) -> bool:
        shop.dies_with(ids, at=2, doing=lambda: crash(server))
        return looks(server, shop, ids) == [FORGOTTEN] * 6

    ids = until_it_forgets(shop, attempt)
    assert shop.ran == [0, 1, 2]
    for later in (LATER, LATER + LATER):
        assert not {each.id for each in shop.dispatch(after=later)} & set(ids)
    rows = shop.rows(ids)
    assert [(row.state.kind.value, row.state.error and row.state.error.tag) for row in rows] == [
        ("failed", "WorkerLost")
    ] * 6
    for attempt_of_it in (0, 1, 2):
        shop.deliver(ids, attempt_of_it)
    assert shop.ran == [0, 1, 2]


@CRASHES
@pytest.mark.parametrize("meets_it", ["who holds them", "the function"])
def test_who_holds_them_makes_true_what_was_forgotten(
    server: Forgetful, shop: Shop, crash: Callable[[Forgetful], None], meets_it: str
) -> None:
    url = shop.store.database.url.render_as_string(hide_password=False)
    forgot: list[bool] = []

    def others_take(ids: list[str]) -> set[str]:
        other = Shop(url)
        try:
            return {each.id for each in other.dispatch(after=LATER)} & set(ids)
        finally:
            other.close()

    def attempt(ids: list[str]) -> bool:
        def fails() -> None:
            crash(server)
            forgot.append(looks(server, shop, ids) == [FORGOTTEN] * 6)
            assert not others_take(ids), "it has begun, and nobody can see it"
            if meets_it == "the function":
                shop.store.database.reading(lambda c: c.exec_driver_sql("SELECT 1"), tries=10)

        shop.doings[2] = fails
        shop.deliver(ids)
        return forgot[-1]

    ids = until_it_forgets(shop, attempt)
    rows = shop.rows(ids)
    assert [(row.state.kind.value, row.state.error) for row in rows[:3]] == [("success", None)] * 3
    taken = {each.id: each.attempt for each in shop.dispatch()}
    left = {id: 1 for id, row in zip(ids, rows, strict=True) if row.state.kind == "pending"}
    assert {id: taken[id] for id in left} == left, "the batch was late by then, and what had not begun was given back"
    shop.receive(list(left.items()))
    assert shop.states(ids) == ["success"] * 6 and shop.ran == list(range(6))


def test_what_was_not_begun_runs_after_a_restart_in_order(server: Forgetful, shop: Shop) -> None:
    ids = shop.schedule(*["action"] * 6)
    shop.dies_with(ids, at=2, doing=server.restarts)
    # The end of number 1 was to be recorded with that of 2, which its worker took with it.
    assert looks(server, shop, ids) == [("success", 2, 1), ("success", 2, 1), ("inProgress", 2, 1)] + [FORGOTTEN] * 3
    taken = shop.dispatch(after=LATER)
    assert {each.id for each in taken} == set(ids[3:])
    shop.deliver([each.id for each in taken], 1)
    assert shop.ran == [0, 1, 2, 3, 4, 5]
    assert shop.states(ids) == ["success"] * 2 + ["inProgress"] + ["success"] * 3


def test_what_was_not_begun_runs_where_only_its_worker_was_lost(server: Forgetful, shop: Shop) -> None:
    ids = shop.schedule(*["task"] * 6)
    shop.dies_with(ids, at=3)
    taken = shop.dispatch(after=LATER)
    assert {each.id for each in taken} == set(ids[4:])
    shop.deliver([each.id for each in taken], 1)
    assert shop.ran == [0, 1, 2, 3, 4, 5]


def test_a_hold_is_on_disk_and_what_begins_by_it_does_not_wait(server: Forgetful, shop: Shop) -> None:
    asking = server.asking()

    def flushed() -> str:
        """Up to where all is on disk."""
        return str(asking.exec_driver_sql("SELECT pg_current_wal_flush_lsn()").scalar_one())

    def flushes(count: int) -> int:
        ids = shop.schedule(*["action"] * count)
        seen: list[str] = []
        for n in range(count):
            shop.doings[n] = lambda: seen.append(flushed())
        shop.deliver(ids)
        assert shop.states(ids) == ["success"] * count and len(seen) == count
        return len(set(seen))

    assert flushes(32) <= 8, "two holds, and what the server writes of itself"
    assert [flushes(2) for _ in range(3)] == [2] * 3, "each claim"
    asking.close()


def test_the_time_of_a_failure_is_told_and_a_restart_in_order_is_none(server: Forgetful, shop: Shop) -> None:
    def since() -> Duration:
        with shop.store.database.engine.connect() as connection:
            told = shop.store.database.dialect.kept_all_since(connection)
        shop.store.database.dispose()
        assert told is not None
        return Duration.micros(told.epoch_micros)

    first = since()
    server.restarts()
    assert since() == first
    server.loses_a_process()
    second = since()
    assert second > first
    server.crashes()
    assert since() > second
