"""A small campaign on the two commonest sites: `python -m tests.faults.campaign` runs larger ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults import skew
from tests.faults.campaign import run, table
from tests.support.brokers import missing
from tests.support.databases import skip_or_fail


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("broker", "database"), [("redis", "postgresql"), ("valkey", "sqlite")])
def test_a_small_campaign(broker: str, database: str, tmp_path: Path) -> None:
    reason = missing(broker) or skew.missing()
    if reason is not None:
        skip_or_fail(reason)
    report = run(broker, database, jobs=220, seconds=28, seed=7, directory=tmp_path, patience=0)
    print(table(report))
    assert report.kept, table(report)
    assert report.scheduled > 150 and report.canceled > 5 and sum(report.faults.values()) > 5
