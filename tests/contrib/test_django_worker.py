"""The Django project with a real worker and a real broker, on every database."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.pool import NullPool

from tests.contrib.conftest import PROJECT, Project, new_project
from tests.support.databases import DATABASES, Databases
from tests.support.processes import Valkey, Worker
from tests.support.waiting import wait_for

pytestmark = pytest.mark.timeout(180)

SCHEDULE = """
account = Account.objects.create(email="{label}")
text = Text(account_id=str(account.pk), text="{label}", seconds={seconds})
result = [confect.scheduler.run_after(Duration.seconds(1), {function}, text) for _ in range({times})]
"""


class Live:
    """The project, its broker, and a worker in processes of their own; this process only looks at the tables."""

    def __init__(self, project: Project, broker_url: str, directory: Path) -> None:
        self.project = project
        project.env["TEST_BROKER_URL"] = broker_url
        self.directory = directory
        self.engine = sa.create_engine(project.url, poolclass=NullPool)
        self.workers: list[Worker] = []

    def worker(self, *options: str) -> Worker:
        worker = Worker("webshop", self.directory, self.project.env, *options)
        worker.cwd = PROJECT
        self.workers.append(worker)
        worker.start()
        return worker

    def run(self, code: str) -> Any:
        return self.project.run(code)

    def schedule(self, function: str, label: str, times: int = 1, seconds: float = 0) -> list[str]:
        found: list[str] = self.run(SCHEDULE.format(function=function, label=label, times=times, seconds=seconds))
        return found

    def texts(self, statement: str, **values: object) -> list[str]:
        with self.engine.connect() as connection:
            return list(connection.scalars(sa.text(statement), values))

    def reminders(self, label: str) -> list[str]:
        """The ids of the rows that left this reminder."""
        return self.texts("SELECT row_id FROM reminders WHERE text = :label ORDER BY row_id", label=label)

    def states(self, ids: list[str]) -> list[str]:
        with self.engine.connect() as connection:
            states = dict(connection.execute(sa.text("SELECT id, state FROM _scheduled_functions")).all())
        return [states.get(id, "missing") for id in ids]

    def ended(self, ids: list[str], within: float = 40) -> list[str]:
        def states() -> list[str] | None:
            found = self.states(ids)
            return None if {"pending", "inProgress"} & set(found) else found

        return wait_for(states, within=within, what=f"the end of {len(ids)} rows")

    def connections(self) -> list[str]:
        """The server's connections to this database, but for our own."""
        if self.project.kind == "postgresql":
            own = "pid <> pg_backend_pid() AND backend_type = 'client backend'"
            return self.texts(f"SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND {own}")  # noqa: S608
        return self.texts(
            "SELECT id FROM information_schema.processlist WHERE db = database() AND id <> connection_id()"
        )

    def drop_connections(self) -> int:
        found = self.connections()
        with self.engine.connect() as connection:
            for id in found:
                kill = "SELECT pg_terminate_backend(:id)" if self.project.kind == "postgresql" else "KILL :id"
                with suppress(sa.exc.OperationalError):  # it has gone by itself
                    connection.execute(sa.text(kill), {"id": id})
        return len(found)

    def close(self) -> None:
        for worker in self.workers:
            worker.stop()
            print(f"----- {worker.log.name}\n{worker.output()[-6000:]}")
        self.engine.dispose()


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    valkey = Valkey(tmp_path_factory.mktemp("broker"))
    valkey.start()
    yield valkey
    valkey.stop()


@pytest.fixture(scope="module", params=DATABASES)
def live(
    request: pytest.FixtureRequest, databases: Databases, broker: Valkey, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Live]:
    directory = tmp_path_factory.mktemp("live")
    number = DATABASES.index(request.param)
    with new_project(request.param, databases, directory) as project:
        project.manage("migrate")
        it = Live(project, f"redis://127.0.0.1:{broker.port}/{number}", directory)
        it.worker()
        yield it
        it.close()


def test_orm_mutations_run_exactly_once(live: Live) -> None:
    ids = live.schedule("remind", "each once", times=20)
    assert set(live.ended(ids)) == {"success"}
    assert live.reminders("each once") == sorted(ids)


def test_a_mutation_that_fails_leaves_nothing_and_the_others_go_on(live: Live) -> None:
    ids = live.schedule("remind_and_fail", "never") + live.schedule("remind_every_way", "all ways")
    assert live.ended(ids) == ["failed", "success"]
    assert live.reminders("never") == []
    assert len(live.reminders("by the session")) == 1


def test_actions_and_plain_tasks(live: Live) -> None:
    action = live.schedule("call_out", "from an action")
    code = 'account = Account.objects.create(email="p")\n'
    code += 'result = [confect.scheduler.run_after(Duration.seconds(1), plain, {"account_id": str(account.pk)})]'
    task = live.run(code)
    assert live.ended(action + task) == ["success", "success"]
    assert len(live.reminders("from an action")) == len(live.reminders("by a plain task")) == 1
    wait_for(lambda: live.reminders("second"), what="what the action scheduled")


def test_a_transaction_that_rolls_back_schedules_nothing(live: Live) -> None:
    code = """
try:
    with transaction.atomic():
        ids = []
        account = Account.objects.create(email="rolled back")
        text = Text(account_id=str(account.pk), text="rolled back")
        ids = [confect.scheduler.run_after(Duration.seconds(1), remind, text) for _ in range(3)]
        raise Refused
except Refused:
    result = ids
"""
    ids = live.run(code)
    after = live.schedule("remind", "after the rollback")
    assert live.ended(after) == ["success"]
    assert live.states(ids) == ["missing"] * 3
    assert live.reminders("rolled back") == []


def test_duplicate_messages_run_it_once(live: Live) -> None:
    code = """
from confect_celery.store import Delivery
from confect_celery.runtime import CeleryTransport
account = Account.objects.create(email="d")
text = Text(account_id=str(account.pk), text="duplicates", seconds=1)
id = confect.scheduler.run_after(Duration.seconds(1), remind, text)
row = confect.scheduler.get(id)
transport = CeleryTransport(app, confect.settings)
for _ in range(10):
    transport.publish(Delivery(id, row.name, row.kind, row.args, row.scheduled_time, 0, row.options, None))
result = [id]
"""
    ids = live.run(code)
    assert live.ended(ids) == ["success"]
    again = live.schedule("remind", "after the duplicates")
    live.ended(again)
    assert live.reminders("duplicates") == ids


def test_a_process_that_dies_right_after_its_commit_loses_nothing(live: Live) -> None:
    code = """
import os
account = Account.objects.create(email="d")
text = Text(account_id=str(account.pk), text="outlived")
def die(delivery):
    print(json.dumps([delivery.id]), flush=True)
    os._exit(0)
with confect.redirected(publish=die):
    confect.scheduler.run_after(Duration.millis(500), remind, text)
"""
    ids = live.run(code)
    assert live.states(ids) == ["pending"]
    assert live.ended(ids) == ["success"]
    assert live.reminders("outlived") == ids


def test_a_worker_that_is_killed_in_a_mutation_leaves_it_to_the_next(live: Live) -> None:
    victim = live.workers[-1]
    ids = live.schedule("remind", "survived", times=2, seconds=6)
    wait_for(lambda: all(f"[{id}] received" in victim.output() for id in ids), what="both to be received")
    victim.kill()
    assert len(live.reminders("survived")) < 2
    live.worker("--pool", "threads", "--concurrency", "3")
    assert live.ended(ids, within=90) == ["success", "success"]
    assert live.reminders("survived") == sorted(ids)


def test_children_that_are_replaced_all_the_time_find_the_database_unlocked(live: Live) -> None:
    """Each fork happens beside our threads, which use the same database."""
    live.workers[-1].stop()
    worker = live.worker("--pool", "prefork", "--concurrency", "2", "--max-tasks-per-child", "2")
    ids = live.schedule("remind", "forked", times=24)
    assert set(live.ended(ids, within=90)) == {"success"}
    assert live.reminders("forked") == sorted(ids)
    for trouble in ("database is locked", "Traceback", "while it uses SQLite", "lost synchronization"):
        assert trouble not in worker.output(), worker.output()[-4000:]


def test_connections_that_the_server_drops_are_made_anew(live: Live) -> None:
    if live.project.kind == "sqlite":
        return  # it has no server
    ids = live.schedule("remind", "reconnected", times=6, seconds=1)
    wait_for(lambda: live.reminders("reconnected"), what="the first to run")
    assert live.drop_connections() > 0
    assert set(live.ended(ids, within=90)) == {"success"}
    assert live.reminders("reconnected") == sorted(ids)


def test_no_connection_lingers_but_those_of_our_threads(live: Live) -> None:
    """CONN_MAX_AGE is 0: the pool's children keep none between tasks; the dispatcher and the reconciler have theirs."""
    if live.project.kind == "sqlite":
        return
    live.ended(live.schedule("remind", "let go", times=8))
    wait_for(lambda: len(live.connections()) <= 2, within=20, what="connections to be closed")
