"""Nobody waits for pruning; `tests/tall` asks the same of a million old rows."""

from __future__ import annotations

from pathlib import Path

from tests.store.pruning import prune_under_load
from tests.support.databases import Databases

OLD = 100_000


def test_what_is_old_goes_in_batches_that_block_nobody(databases: Databases, tmp_path: Path) -> None:
    seen = prune_under_load(databases, tmp_path, OLD)
    assert seen.left == 0
    assert seen.kept == OLD // 10 * 2
    assert seen.looks > 0
    assert seen.lock_waits == []
    assert set(seen.took) == {"schedule", "claim", "cancel", "finish"}
    assert seen.worst(99) < 50, seen.took
