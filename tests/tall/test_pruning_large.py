"""Nobody waits while a million old rows go."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.store.pruning import prune_under_load
from tests.support.databases import Databases

OLD = 1_000_000


@pytest.mark.timeout(900)
def test_what_is_old_goes_in_batches_that_block_nobody(databases: Databases, tmp_path: Path) -> None:
    seen = prune_under_load(databases, tmp_path, OLD)
    figures = {call: [round(seen.worst(share, call), 1) for share in (50, 99, 100)] for call in seen.took}
    print(f"{OLD / seen.seconds:,.0f} rows/s; p50, p99 and max in ms: {figures}")
    assert seen.left == 0
    assert seen.kept == OLD // 10 * 2
    assert seen.lock_waits == []
    assert set(seen.took) == {"schedule", "claim", "cancel", "finish"}
    assert seen.worst(99.9) < 50, figures
