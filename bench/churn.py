"""`python -m bench.churn`: what a row's life costs PostgreSQL's table and indexes, by the table's storage settings.

Each variant gets a table of its own with finished rows in it; then jobs live through it in waves, as actions do
(insert, handed over, start, success), through the store's own statements.
"""

from __future__ import annotations

import argparse
import shutil
import time
from dataclasses import dataclass, field

import sqlalchemy as sa

from confect_celery import DateTime, Duration
from confect_celery.store import NewRow, StateKind, Store, new_id
from tests.store.tall import fill, stages
from tests.support.databases import PostgresServer, new_database, open_directory

BATCH = 500
TABLE = "_scheduled_functions"


@dataclass(frozen=True)
class Variant:
    """Storage settings of the table."""

    name: str
    settings: dict[str, str] = field(default_factory=dict)
    statements: tuple[str, ...] = ()


def vacuum(scale: str, insert_scale: str | None = None, **more: str) -> dict[str, str]:
    """Autovacuum's thresholds."""
    settings = {"autovacuum_vacuum_scale_factor": scale, "autovacuum_analyze_scale_factor": scale}
    if insert_scale is not None:
        settings["autovacuum_vacuum_insert_scale_factor"] = insert_scale
    return settings | more


VARIANTS = [
    *(Variant(f"fillfactor {n}", {"fillfactor": str(n)}) for n in (100, 90, 80, 70)),
    Variant("one index", statements=(f"DROP INDEX ix{TABLE}_running",)),
    Variant(
        "GIN of live args",
        statements=(f"CREATE INDEX ON {TABLE} USING gin (args jsonb_path_ops) WHERE next_at IS NOT NULL",),
    ),
    Variant("vacuum at 20 %", {"autovacuum_vacuum_scale_factor": "0.2", "autovacuum_analyze_scale_factor": "0.1"}),
    Variant("vacuum at 5 %", vacuum("0.05", "0.05")),
    Variant("vacuum at 2 %", vacuum("0.02", "0.02")),
    Variant("vacuum at 1 %", vacuum("0.01", "0.01")),
    Variant("vacuum at 0.2 %", vacuum("0.002", "0.002")),
]


def main() -> None:
    """Print a line for each variant."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--history", type=int, default=1_000_000)
    parser.add_argument("--jobs", type=int, default=100_000)
    parser.add_argument("--only", default="")
    arguments = parser.parse_args()
    directory = open_directory()
    server = PostgresServer(directory)
    server.process.argv += ["-c", "autovacuum_naptime=2s", "-c", "shared_buffers=512MB", "-c", "max_wal_size=4GB"]
    server.start()
    titles = (
        "variant",
        "jobs/s",
        "HOT %",
        "full table MB",
        "table MB",
        "indexes MB",
        "dead",
        "vacuums",
        "WAL B/job",
        "poll ms p50/max",
    )
    print(*(f"{title:>16}" for title in titles))
    try:
        for variant in VARIANTS:
            if arguments.only in variant.name:
                with new_database(server) as url:
                    print(
                        *(f"{each:>16}" for each in measure(url, variant, arguments.history, arguments.jobs)),
                        flush=True,
                    )
    finally:
        server.stop()
        shutil.rmtree(directory, ignore_errors=True)


def measure(url: str, variant: Variant, history: int, jobs: int) -> list[str]:
    """Let the jobs live and look at what they leave."""
    store = Store(url)
    store.migrate()
    with store.database.autocommit() as connection:
        for name, value in variant.settings.items():
            connection.exec_driver_sql(f"ALTER TABLE {TABLE} SET ({name} = {value})")
        for statement in variant.statements:
            connection.exec_driver_sql(statement)
    made = stages(history, due=0)
    fill(store, {name: made[name] for name in ("ended", "far")}, DateTime.now())
    before = figures(store)
    start = time.perf_counter()
    polls: list[float] = []
    for _ in range(jobs // BATCH):
        live(store, polls)
    took = time.perf_counter() - start
    time.sleep(1.5)  # the statistics are reported once a second
    after = figures(store)
    store.database.dispose()
    updates = after["n_tup_upd"] - before["n_tup_upd"]
    polls.sort()
    return [
        variant.name,
        f"{jobs / took:,.0f}",
        f"{100 * (after['n_tup_hot_upd'] - before['n_tup_hot_upd']) / updates:.1f}",
        f"{before['heap'] / 1e6:.0f}",
        f"+{(after['heap'] - before['heap']) / 1e6:.1f}",
        f"+{(after['indexes'] - before['indexes']) / 1e6:.1f}",
        f"{after['n_dead_tup']:,}",
        f"{after['autovacuum_count'] - before['autovacuum_count']}",
        f"{(after['wal'] - before['wal']) / jobs:,.0f}",
        f"{polls[len(polls) // 2]:.2f} / {polls[-1]:.1f}",
    ]


def live(store: Store, polls: list[float]) -> None:
    """One batch of jobs from the insert to the end."""
    now = DateTime.now()
    rows = [NewRow(new_id(now), "internal/shop/f", "action", {"user_id": n}, now, now, now) for n in range(BATCH)]
    statements, lease = store.rows, now + Duration.seconds(30)
    with store.database.transaction() as t:
        statements.insert(t.connection, rows, delivered_until={}, born=StateKind.PENDING)
    with store.database.autocommit() as connection:
        began = time.perf_counter()
        statements.oldest_due(connection, now=now, ahead=now)
        polls.append((time.perf_counter() - began) * 1000)
    with store.database.transaction() as t:
        taken = statements.claim_due(t.connection, now=now, ahead=now, redelivery=Duration.seconds(30), batch=BATCH)
    assert len(taken) == BATCH
    for begin in range(0, BATCH, 50):
        some = rows[begin : begin + 50]
        with store.database.transaction() as t:
            assert all(statements.start(t.connection, row.id, 0, lease) for row in some)
        with store.database.transaction() as t:
            assert all(statements.succeed_running(t.connection, row.id, 1, now) for row in some)


def figures(store: Store) -> dict[str, int]:
    """What PostgreSQL counts."""
    with store.database.autocommit() as connection:
        counted = connection.execute(
            sa.text(
                "SELECT n_tup_upd, n_tup_hot_upd, n_dead_tup, autovacuum_count, pg_table_size(relid) AS heap, "
                "pg_indexes_size(relid) AS indexes, pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::bigint AS wal "
                "FROM pg_stat_user_tables WHERE relname = :name"
            ),
            {"name": TABLE},
        )
        return dict(counted.mappings().one())


if __name__ == "__main__":
    main()
