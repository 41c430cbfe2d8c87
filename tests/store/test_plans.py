"""No statement reads more of a tall table than what it is after; `tests/tall` asks the same of ten million rows."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from confect_celery.store import Statements, Statistics, Store
from confect_celery.timing import DateTime
from tests.store.calls import Call, Tall, calls, open_tall
from tests.store.explaining import check, reached
from tests.store.tall import fill, stages
from tests.support.databases import DATABASES, Databases

ROWS = 200_000
CALLS = calls()
OF_RUNNING_ROWS = (
    *("succeed_running", "fail_running", "retry", "requeue", "renew", "cancel a running row"),
    *("succeed_and_start", "succeed_and_begin", "bury"),
)


@pytest.fixture(scope="module", params=DATABASES)
def tall(
    request: pytest.FixtureRequest, databases: Databases, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Tall]:
    with open_tall(databases, request.param, tmp_path_factory.mktemp("tall"), ROWS) as tall:
        yield tall


@pytest.mark.parametrize("call", CALLS, ids=lambda call: call.name)
def test_it_reads_what_it_is_after_and_no_more(tall: Tall, call: Call) -> None:
    if not call.made(tall):
        pytest.skip("this database is never asked that")
    check(tall, call)


def test_no_statement_is_left_out() -> None:
    there = {name for room in (Statements, Statistics) for name in dir(room) if not name.startswith("_")}
    called = {call.name.removeprefix("statistics ").partition(" ")[0] for call in CALLS}
    missing = there - called
    assert missing == set()
    assert [name for name in OF_RUNNING_ROWS if not any(call.name.startswith(name) for call in CALLS)] == []


@pytest.fixture(scope="module")
def calm(databases: Databases, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tall]:
    """A table in which nothing ran when its rows were last counted, as most often."""
    with databases.url("postgresql", tmp_path_factory.mktemp("calm")) as url:
        store = Store(url)
        try:
            store.migrate()
            tall = Tall(store, stages(20_000), DateTime.now())
            running = {name: tall.stages[name] for name in ("running", "dead")}
            fill(store, {name: stage for name, stage in tall.stages.items() if name not in running}, tall.now)
            fill(store, running, tall.now, settle=False)
            yield tall
        finally:
            store.database.dispose()


@pytest.mark.parametrize("plans", ["custom", "generic"])
@pytest.mark.parametrize(
    "call", [each for each in CALLS if each.name.startswith(OF_RUNNING_ROWS)], ids=lambda c: c.name
)
def test_what_goes_by_id_finds_it_by_nothing_else(calm: Tall, call: Call, plans: str) -> None:
    """The index of running rows looks small then, and holds the entries of many that have ended."""
    scans = reached(calm, call, plans)
    assert {scan.rpartition(" ")[2] for scan in scans if "Bitmap Heap" not in scan} == {"_scheduled_functions_pkey"}
