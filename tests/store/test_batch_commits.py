"""What came in a batch commits as `confect_batch_waits_for_disk` says; what came alone always waits for the disk."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa
from celery import Celery
from pydantic import BaseModel

from confect_celery import Confect, Duration
from confect_celery.runtime import Succeeded
from confect_celery.runtime.relay import Relay
from confect_celery.store import OwnTransaction, StateKind, Store
from tests.store.test_database import transient


class Nothing(BaseModel):
    pass


def commits(store: Store, *, batched: bool, **conf: Any) -> str:
    """PostgreSQL's `synchronous_commit`, as a mutation finds it."""
    app = Celery("commits", broker="memory://", set_as_current=False)
    app.conf.update(
        confect_database_url=store.database.url.render_as_string(hide_password=False), confect_min_delay=0, **conf
    )
    confect = Confect(app)
    found: list[str] = []

    @confect.group("t").internal_mutation
    def look(args: Nothing, connection: sa.Connection) -> None:
        found.append(connection.exec_driver_sql("SHOW synchronous_commit").scalar_one())

    try:
        id = confect.scheduler.run_after(Duration.zero, look, Nothing())
        loaded = confect.store.database.reading(lambda c: confect.store.rows.load_many(c, [id]))[id]
        outcome = confect.gate.run(id, 0, look.name, loaded if batched else None)
        assert isinstance(outcome, Succeeded), outcome
        with confect.store.database.autocommit() as connection:
            now = connection.exec_driver_sql("SHOW synchronous_commit").scalar_one()
        assert now == "on", "for the transaction only"
    finally:
        confect.store.database.dispose()
    return found[0]


@pytest.mark.parametrize("store", ["postgresql"], indirect=True)
def test_mutations_of_a_batch_are_on_disk_unless_told_otherwise(store: Store) -> None:
    assert commits(store, batched=True) == "on"
    assert commits(store, batched=True, confect_batch_waits_for_disk=False) == "off"
    assert commits(store, batched=False, confect_batch_waits_for_disk=False) == "on"


def test_the_end_of_a_row_of_a_batch_is_recorded_after_any_trouble_with_the_database(confect: Confect) -> None:
    """What a database may have forgotten is made true again then, by statements that every database has."""

    @confect.group("t").internal_action
    def act(args: Nothing) -> None: ...

    store, tried = confect.store, []
    id = confect.scheduler.run_after(Duration.seconds(1), act, Nothing())
    row = store.database.reading(lambda c: store.rows.load_many(c, [id]))[id]
    relay = Relay(store, confect.clock, confect.settings, lambda: False)
    assert relay.start(row)

    def fails_once(transaction: OwnTransaction) -> None:
        tried.append(1)
        if len(tried) == 1:
            raise transient(store.database)

    store.database.retrying(fails_once)
    assert len(tried) == 2 and relay.succeed(row, lambda: None)
    found = confect.scheduler.get(id)
    assert found is not None and found.state.kind is StateKind.SUCCESS
