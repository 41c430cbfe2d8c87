"""`python -m bench.old_snapshot`: what an idle poll costs while somebody holds an old snapshot open on PostgreSQL.

Rows become due and finish, in waves; after each the poll is timed without a bound and with one (`runtime.floor`).
"""

from __future__ import annotations

import argparse
import shutil
import time
from collections.abc import Callable

from confect_celery import DateTime, Duration
from confect_celery.store import Store
from tests.store.tall import Stage, fill, stages
from tests.support.databases import PostgresServer, new_database, open_directory

WAVE = 100_000
SPAN = 60_000_000


def main() -> None:
    """Print a line after each wave: with the snapshot open, and after its end."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--waves", type=int, default=5)
    arguments = parser.parse_args()
    directory = open_directory()
    server = PostgresServer(directory)
    server.start()
    try:
        with new_database(server) as url:
            measure(Store(url), arguments.rows, arguments.waves)
    finally:
        server.stop()
        shutil.rmtree(directory, ignore_errors=True)


def measure(store: Store, rows: int, waves: int) -> None:
    """The waves."""
    store.migrate()
    made = stages(rows, due=0)
    fill(store, {name: made[name] for name in ("ended", "far")}, DateTime.now())
    print(f"{'finished under it':>20}{'full look, ms':>16}{'with a bound':>16}")
    with store.database.engine.connect() as reader:
        reader = reader.execution_options(isolation_level="REPEATABLE READ")
        reader.exec_driver_sql("SELECT 1 FROM _scheduled_functions LIMIT 1").all()
        tell(store, "0")
        for wave in range(1, waves + 1):
            churn(store, wave)
            tell(store, f"{wave * WAVE:,}")
    with store.database.autocommit() as connection:
        connection.exec_driver_sql("VACUUM _scheduled_functions")
    tell(store, "snapshot ended")
    store.database.dispose()


def churn(store: Store, wave: int) -> None:
    """Rows that were due over the last minute, and have finished."""
    due = Stage(wave + 8, WAVE, "pending", (-SPAN * 2, -SPAN), next_at=(-SPAN, -1_000_000))
    fill(store, {"due": due}, DateTime.now())
    with store.database.transaction() as t:
        now = store.table.c.scheduled_time
        table = store.table
        ended = table.update().values(state="success", completed_time=now, next_at=None)
        t.connection.execute(ended.where(table.c.next_at < DateTime.now(), table.c.state == "pending"))


def tell(store: Store, what: str) -> None:
    """Time the polls."""
    since = DateTime.now()
    full, bounded = timed(store, lambda _: None), timed(store, lambda _: since)
    print(f"{what:>20}{full:>16.2f}{bounded:>16.2f}", flush=True)


def timed(store: Store, since: Callable[[DateTime], DateTime | None]) -> float:
    """The median of 21, in milliseconds."""
    took = []
    with store.database.autocommit() as connection:
        for _ in range(21):
            now = DateTime.now()
            began = time.perf_counter()
            store.rows.oldest_due(connection, now=now, ahead=now + Duration.seconds(2), since=since(now))
            took.append((time.perf_counter() - began) * 1000)
    return sorted(took)[10]


if __name__ == "__main__":
    main()
