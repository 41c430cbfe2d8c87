"""`make bench`: how late jobs start on the embedded default: Valkey, SQLite, one prefork worker with two children."""

from __future__ import annotations

import importlib
import os
import statistics
import tempfile
from pathlib import Path

from tests.support.processes import Valkey, Worker
from tests.support.waiting import wait_for

ROUNDS, JOBS, SPREAD_SECONDS = 3, 200, 10


def main() -> None:
    """Schedule 200 mutations over 10 s, three times; print the lag's percentiles of each round."""
    directory = Path(tempfile.mkdtemp(prefix="confect-bench-"))
    broker = Valkey(directory)
    broker.start()
    env = {"TEST_BROKER_URL": broker.url, "TEST_DATABASE_URL": f"sqlite:///{directory}/bench.db"}
    os.environ.update(env)
    shop = importlib.import_module("tests.integration.shop")
    from confect_celery import DateTime, Duration

    shop.metadata.create_all(shop.confect.store.database.engine)
    worker = Worker("tests.integration.shop", directory, env)
    worker.start()
    try:
        for turn in range(ROUNDS):
            start, apart = DateTime.now() + Duration.seconds(3), Duration.seconds(SPREAD_SECONDS / JOBS)
            jobs = [(start + apart * n, shop.mark, shop.Label(label=str(n))) for n in range(JOBS)]
            ids = set(shop.confect.scheduler.run_many(jobs))

            def started(ids: set[str] = ids) -> list[float]:
                with shop.confect.reader() as db:
                    at = {mark.row_id: mark.at for mark in db.table("marks").collect() if mark.row_id in ids}
                    rows = db.table("_scheduled_functions").collect()
                due = {row.id: row.scheduled_time.epoch_micros / 1_000_000 for row in rows}
                return [(at[id] - due[id]) * 1000 for id in at] if len(at) == len(ids) else []

            wait_for(lambda seen=started: seen(), within=60, what="all jobs")  # type: ignore[misc]
            lag = statistics.quantiles(started(), n=100)
            print(f"round {turn + 1}: lag p1 {lag[0]:.1f}  p50 {lag[49]:.1f}  p90 {lag[89]:.1f}  p99 {lag[98]:.1f} ms")
    finally:
        worker.stop()
        broker.stop()


if __name__ == "__main__":
    main()
