"""The stories of rows that are held, on the package as it is; `make check-the-checks` plays them with each mutant."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.property import holding
from tests.property.actors import Play
from tests.support.databases import Databases


@pytest.mark.timeout(120)
def test_held_rows_keep_the_guarantees(databases: Databases, tmp_path: Path) -> None:
    with databases.url("postgresql", tmp_path) as url:
        play = Play(url)
        try:
            holding.drill(play)
        finally:
            play.close()
    assert play.examples == len(holding.STORIES) + 1, "each begins anew"
