"""The database server goes away in the middle, and comes back."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from celery import Celery

from confect_celery import Confect, DatabaseWriter, Duration, StateKind
from confect_celery.runtime import Dispatcher, Outbox, Succeeded
from confect_celery.store import Delivery
from tests.support.databases import MariadbServer, PostgresServer, missing, new_database, open_directory, skip_or_fail
from tests.support.waiting import wait_for


@pytest.fixture(params=["postgresql", "mariadb"])
def server(request: pytest.FixtureRequest) -> Iterator[Any]:
    if reason := missing(request.param):
        skip_or_fail(reason)
    kind = {"postgresql": PostgresServer, "mariadb": MariadbServer}[request.param]
    server = kind(open_directory())
    server.start()
    yield server
    server.stop()
    shutil.rmtree(server.process.cwd, ignore_errors=True)


@pytest.fixture
def confect(server: Any, tmp_path: Path) -> Iterator[Confect]:
    with new_database(server) as url:
        metadata = sa.MetaData()
        sa.Table("marks", metadata, sa.Column("id", sa.Integer, primary_key=True), sa.Column("label", sa.String(50)))
        app = Celery("restart", broker="memory://", set_as_current=False)
        app.conf.confect_database_url = url
        confect = Confect(app, schema=metadata)
        confect.store.migrate()
        metadata.create_all(confect.store.database.engine)
        yield confect
        confect.store.database.dispose()


def restart(server: Any) -> None:
    server.stop()
    server.start()


def test_mutations_dispatchers_and_callers_go_on_after_a_restart(server: Any, confect: Confect) -> None:
    tries: list[int] = []

    @confect.group("t").internal_mutation
    def interrupted(db: DatabaseWriter) -> None:
        tries.append(1)
        db.table("marks").insert({"label": f"try {len(tries)}"})
        if len(tries) == 1:
            restart(server)  # our own transaction dies with it

    @confect.group("t").internal_action
    def act() -> str:
        restart(server)
        return "done"

    published: list[Delivery] = []

    class Broker:
        def publish(self, delivery: Delivery) -> None:
            published.append(delivery)

    settings = confect.settings.model_copy(update={"min_delay": Duration.zero})
    outbox = Outbox(confect.store, Broker(), confect.clock)
    dispatcher = Dispatcher(confect.store, outbox, confect.clock, settings)
    with confect.redirected(publish=published.append):
        ids = [confect.scheduler.run_after(Duration.seconds(3), function) for function in (interrupted, act)]
    dispatcher.start()
    outbox.start()
    try:
        restart(server)  # while the dispatcher sleeps or polls
        wait_for(lambda: len(published) == 2, within=30, what="both to be published after the restart")
    finally:
        dispatcher.stop()
        outbox.stop()
    outcomes = {delivery.name: confect.run_delivery(delivery) for delivery in published}
    assert outcomes == {interrupted.name: Succeeded(None), act.name: Succeeded("done")}
    assert [row.state.kind for id in ids if (row := confect.scheduler.get(id))] == [StateKind.SUCCESS] * 2
    with confect.reader() as db:
        assert [mark.label for mark in db.table("marks").collect()] == ["try 2"]


def test_a_restart_does_not_double_what_was_committed(server: Any, confect: Confect) -> None:
    """The connection breaks during the commit: a scheduled mutation is looked up, not blindly run again."""

    @confect.group("t").internal_mutation
    def mark(db: DatabaseWriter) -> None:
        db.table("marks").insert({"label": "x"})

    with confect.redirected(publish=lambda _: None):
        id = confect.scheduler.run_after(Duration.seconds(1), mark)
    wait_for(lambda: (row := confect.scheduler.get(id)) and row.scheduled_time <= confect.clock.now(), what="due")
    engine, broken = confect.store.database.engine, []

    @sa.event.listens_for(engine, "commit")
    def lose_the_answer(connection: sa.Connection) -> None:
        if not broken and connection.in_transaction():
            broken.append(1)
            connection.connection.dbapi_connection.commit()  # type: ignore[union-attr]
            restart(server)

    outcome = confect.gate.run(id, 0)
    assert broken
    row = confect.scheduler.get(id)
    assert row is not None
    assert row.state.kind is StateKind.SUCCESS
    assert type(outcome).__name__ in ("Dropped", "Succeeded")  # where the driver notices, the row is looked up
    with confect.reader() as db:
        assert db.table("marks").count() == 1


def test_a_cancel_whose_answer_was_lost_still_says_that_it_did_it(
    server: Any, confect: Confect, monkeypatch: pytest.MonkeyPatch
) -> None:
    @confect.group("t").internal_action
    def act() -> None: ...

    with confect.redirected(publish=lambda _: None):
        id = confect.scheduler.run_after(Duration.hours(1), act)
    broken, execute = [], confect.store.database.dialect.execute

    def lose_the_answer(connection: sa.Connection, *given: Any) -> Any:
        answer = execute(connection, *given)
        if not broken:
            broken.append(answer)
            restart(server)
            connection.exec_driver_sql("SELECT 1")
        return answer

    monkeypatch.setattr(confect.store.database.dialect, "execute", lose_the_answer)
    assert confect.scheduler.cancel(id) is True
    row = confect.scheduler.get(id)
    assert broken and row is not None and row.state.kind is StateKind.CANCELED
    assert confect.scheduler.cancel(id) is False
