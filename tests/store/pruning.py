"""Pruning while the shop goes on: nobody waits for it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from confect_celery.runtime.reconciler import Reconciler
from confect_celery.settings import Settings
from confect_celery.store import NewRow, StateKind, Store, new_id
from confect_celery.timing import DateTime, Duration, SystemClock
from tests.store.tall import Stage, fill
from tests.support.databases import Databases
from tests.support.waiting import wait_for

__all__ = ["Seen", "prune_under_load"]

_DAY = 86_400_000_000
_LOCK_TIMEOUT = "-c lock_timeout=20ms"
"""A statement that waits longer than this for a lock fails: a wait that no look at the server would catch."""


@dataclass
class Seen:
    """What happened while the old rows went."""

    seconds: float = 0.0
    took: dict[str, list[float]] = field(default_factory=dict)
    """Of each call, how many milliseconds."""
    lock_waits: list[str] = field(default_factory=list)
    looks: int = 0
    left: int = 0
    kept: int = 0

    def worst(self, percent: float, *names: str) -> float:
        """How long that share of the calls took at most; of all, unless some are named."""
        took = sorted(each for name in names or self.took for each in self.took[name])
        return took[min(int(len(took) * percent / 100), len(took) - 1)]


def prune_under_load(databases: Databases, directory: Path, old: int, *, pruners: int = 2) -> Seen:
    """Delete `old` rows in PostgreSQL by so many workers' reconcilers, while jobs are scheduled, claimed, run and
    canceled."""
    with databases.url("postgresql", directory) as url:
        # It fills the table, with no limit: the vacuum after that may wait for the server's own.
        filler = Store(url)
        filler.migrate()
        now = DateTime.now()
        made = {
            "old": Stage(1, old, "success", (-30 * _DAY, -8 * _DAY), ended=True),
            "young": Stage(2, old // 10, "success", (-6 * _DAY, -_DAY), ended=True),
            "far": Stage(3, old // 10, "pending", (-60 * _DAY, -_DAY), next_at=(_DAY, 700 * _DAY)),
        }
        fill(filler, made, now)
        filler.database.dispose()
        store = Store(sa.make_url(url).update_query_dict({"options": _LOCK_TIMEOUT}).render_as_string(False))
        seen, done = Seen(), threading.Event()
        errors: list[BaseException] = []

        def prune() -> None:
            reconciler = Reconciler(store, SystemClock(), Settings(), lambda: ())
            try:
                wait_for(lambda: reconciler.sweep() or not _old(store, now), within=300, what="the old rows to go")
            except BaseException as error:
                errors.append(error)

        began = time.monotonic()
        threads = [threading.Thread(target=prune) for _ in range(pruners)]
        with _watching(url, seen, done):
            for thread in threads:
                thread.start()
            while any(thread.is_alive() for thread in threads):
                _work(store, seen)
            done.set()
        seen.seconds = time.monotonic() - began
        if errors:
            raise errors[0]
        with store.database.autocommit() as connection:
            count = sa.select(sa.func.count()).select_from(store.table)
            seen.left = connection.execute(
                count.where(store.table.c.completed_time < now - Duration.days(7))
            ).scalar_one()
            seen.kept = connection.execute(count.where(store.table.c.creation_time < now)).scalar_one()
        store.database.dispose()
        return seen


def _old(store: Store, now: DateTime) -> bool:
    table = store.table
    old = sa.select(table.c.id).where(table.c.completed_time < now - Duration.days(7)).limit(1)
    with store.database.autocommit() as connection:
        return connection.execute(old).first() is not None


def _work(store: Store, seen: Seen) -> None:
    """Ten jobs: half of them are canceled, half run."""
    rows, now = store.rows, DateTime.now()
    ids = [new_id(now) for _ in range(10)]

    def timed(name: str, call: Callable[[sa.Connection], Any]) -> Any:
        began = time.perf_counter()
        with store.database.transaction() as t:
            result = call(t.connection)
        seen.took.setdefault(name, []).append((time.perf_counter() - began) * 1000)
        return result

    for id in ids:
        row = NewRow(id, "internal/t/f", "mutation", {}, now, now, now)
        timed("schedule", lambda c, row=row: rows.insert(c, [row], delivered_until={}, born=StateKind.PENDING))
    for id in ids[:5]:
        assert timed("cancel", lambda c, id=id: rows.cancel(c, id, now))
    taken = timed("claim", lambda c: rows.claim_due(c, now=now, ahead=now, redelivery=Duration.seconds(30), batch=500))
    assert {delivery.id for delivery in taken} == set(ids[5:])
    for id in ids[5:]:
        assert timed("finish", lambda c, id=id: rows.succeed_pending(c, id, 0, now))


@contextmanager
def _watching(url: str, seen: Seen, done: threading.Event) -> Iterator[None]:
    def watch() -> None:
        engine = sa.create_engine(url, isolation_level="AUTOCOMMIT")
        waits = sa.text(
            "SELECT query FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        )
        with engine.connect() as connection:
            while not done.wait(0.005):
                seen.lock_waits += connection.scalars(waits)
                seen.looks += 1
        engine.dispose()

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()
