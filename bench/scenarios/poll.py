"""What the dispatcher's look for due rows costs while nothing is due, and how big the table is."""

from __future__ import annotations

import statistics
import time
from typing import Any, Final

from bench import fill
from bench.contenders import Shop
from bench.report import Goal
from bench.run import Run
from confect_celery import DateTime, Duration

__all__ = ["GOALS", "measure"]

_NAME: Final = "poll"
_SIZES: Final = (0, 1_000_000, 10_000_000)
_WAVE: Final = 100_000

GOALS: Final = [
    *(Goal(_NAME, f"{rows:,} rows", 3, at_least=False) for rows in _SIZES),
    *(Goal(_NAME, f"{rows:,} rows, old snapshot", 3, at_least=False) for rows in _SIZES),
]


def measure(run: Run) -> None:
    """The look is the store's own query, 101 times a sample; the old snapshot was taken before 100,000 rows ended."""
    for rows in _SIZES[:2] if run.quick else _SIZES:
        with run.shop(pending=rows) as shop:
            engine = shop.confect.store.database.engine
            line = f"{rows:,} rows"
            for _ in range(run.rounds):
                run.sample(_NAME, line, "ms", _look(shop, None))
            with engine.connect() as connection:
                for what, call in (("table", "pg_table_size"), ("indexes", "pg_indexes_size")):
                    size = connection.exec_driver_sql(f"SELECT {call}('_scheduled_functions')").scalar_one()
                    run.sample(_NAME, f"{line}, {what}", "MiB", size / 2**20)
            with engine.connect().execution_options(isolation_level="REPEATABLE READ") as old:
                old.exec_driver_sql("SELECT 1 FROM _scheduled_functions LIMIT 1").all()
                fill.ended(shop.confect.store, run.size(20_000, _WAVE))
                since = DateTime.now()
                for _ in range(run.rounds):
                    run.sample(_NAME, f"{line}, old snapshot", "ms", _look(shop, since))
                    run.sample(_NAME, f"{line}, old snapshot, now and then without a bound", "ms", _look(shop, None))


def _look(shop: Shop, since: DateTime | None) -> float:
    store: Any = shop.confect.store
    took = []
    with store.database.autocommit() as connection:
        for _ in range(101):
            now = DateTime.now()
            began = time.perf_counter()
            found = store.rows.oldest_due(connection, now=now, ahead=now + Duration.seconds(2), since=since)
            took.append((time.perf_counter() - began) * 1000)
            assert found is None, "something was due"
    return statistics.median(took)
