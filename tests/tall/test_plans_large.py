"""No statement reads more of ten million rows than what it is after; of three million on SQLite and MariaDB.

Those two take five minutes over ten million, and what is read is counted: a scan of three shows as well.
`CONFECT_TALL=10000000` has them all as tall.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.store.calls import Call, Tall, calls, open_tall
from tests.store.explaining import check
from tests.support.databases import DATABASES, Databases

ROWS = {"postgresql": 10_000_000, "mariadb": 3_000_000, "sqlite": 3_000_000}

pytestmark = pytest.mark.timeout(1800)


@pytest.fixture(scope="module", params=DATABASES)
def tall(
    request: pytest.FixtureRequest, databases: Databases, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Tall]:
    rows = int(os.environ.get("CONFECT_TALL", ROWS[request.param]))
    with open_tall(databases, request.param, tmp_path_factory.mktemp("tall"), rows) as tall:
        yield tall


@pytest.mark.parametrize("call", calls(), ids=lambda call: call.name)
def test_it_reads_what_it_is_after_and_no_more(tall: Tall, call: Call) -> None:
    if not call.made(tall):
        pytest.skip("this database is never asked that")
    check(tall, call)
