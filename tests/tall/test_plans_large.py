"""No statement reads more of ten million rows than what it is after."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.store.calls import Call, Tall, calls, open_tall
from tests.store.explaining import check
from tests.support.databases import DATABASES, Databases

ROWS = 10_000_000

pytestmark = pytest.mark.timeout(1800)


@pytest.fixture(scope="module", params=DATABASES)
def tall(
    request: pytest.FixtureRequest, databases: Databases, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Tall]:
    with open_tall(databases, request.param, tmp_path_factory.mktemp("tall"), ROWS) as tall:
        yield tall


@pytest.mark.parametrize("call", calls(), ids=lambda call: call.name)
def test_it_reads_what_it_is_after_and_no_more(tall: Tall, call: Call) -> None:
    if not call.made(tall):
        pytest.skip("this database is never asked that")
    check(tall, call)
