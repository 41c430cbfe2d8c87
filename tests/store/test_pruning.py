"""Nobody waits for pruning; `tests/tall` asks the same of a million old rows."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa

from confect_celery.runtime.reconciler import Reconciler
from confect_celery.settings import Settings
from confect_celery.store import Store
from confect_celery.timing import DateTime, SystemClock
from tests.store.pruning import prune_under_load
from tests.store.tall import Stage, fill
from tests.support.databases import Databases

OLD = 100_000
_DAY = 86_400_000_000


def old_rows(store: Store, count: int) -> None:
    fill(store, {"old": Stage(1, count, "success", (-30 * _DAY, -8 * _DAY), ended=True)}, DateTime.now())


def count(store: Store) -> int:
    with store.database.autocommit() as connection:
        return connection.scalars(sa.select(sa.func.count()).select_from(store.table)).one()


def reconciler(store: Store) -> Reconciler:
    return Reconciler(store, SystemClock(), Settings(), lambda: ())


def test_a_sweep_deletes_many_batches(store: Store) -> None:
    old_rows(store, 2_500)
    reconciler(store).sweep()
    assert count(store) == 0


@pytest.mark.parametrize("kind", ["postgresql", "mariadb"])  # SQLite's writers are alone anyway
def test_while_one_prunes_others_do_not(databases: Databases, tmp_path: Path, kind: str) -> None:
    with databases.url(kind, tmp_path) as url:
        store = Store(url)
        store.migrate()
        old_rows(store, 10)
        with store.database.transaction() as t:
            assert store.database.dialect.try_lock(t.connection, f"prune:{store.table.fullname}")
            assert reconciler(store).prune() is False
            assert count(store) == 10
        reconciler(store).prune()
        assert count(store) == 0
        store.database.dispose()


def test_a_walk_passes_over_rows_without_fetching_them(databases: Databases, tmp_path: Path) -> None:
    """A worker's main process would be busy with it: a second of each sweep, for a walk over a million rows."""
    fetched: list[int] = []
    with databases.url("postgresql", tmp_path) as url:
        store = Store(url)
        store.migrate()
        fill(store, {"waiting": Stage(1, 2_500, "pending", (-30 * _DAY, -8 * _DAY))}, DateTime.now())
        walking = reconciler(store)
        sa.event.listen(
            store.database.engine, "after_cursor_execute", lambda _, cursor, *rest: fetched.append(cursor.rowcount)
        )
        while walking.prune():
            pass
        assert count(store) == 2_500
        store.database.dispose()
    assert fetched and max(fetched) == 1, "of each statement, how many rows came or went"


def test_what_is_old_goes_in_batches_that_block_nobody(databases: Databases, tmp_path: Path) -> None:
    seen = prune_under_load(databases, tmp_path, OLD)
    assert seen.left == 0
    assert seen.kept == OLD // 10 * 2
    assert seen.looks > 0
    assert seen.lock_waits == []
    assert set(seen.took) == {"schedule", "claim", "cancel", "finish"}
    assert seen.worst(99) < 50, seen.took
