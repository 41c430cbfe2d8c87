"""No statement reads more of a tall table than what it is after; `tests/tall` asks the same of ten million rows."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from confect_celery.store import Statements, Statistics
from tests.store.calls import Call, Tall, calls, open_tall
from tests.store.explaining import check
from tests.support.databases import DATABASES, Databases

ROWS = 200_000
CALLS = calls()


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
