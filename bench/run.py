"""What a scenario is given, and where it puts what it measures."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from rich.console import Console

from bench import fill
from bench.contenders import Shop
from bench.report import Report
from bench.servers import Servers
from confect_celery.store import Store

__all__ = ["Run", "Stopwatch"]

_ON_RABBIT: Final = frozenset({"schedule", "drain", "calls"})
_TALL: Final = frozenset({"lag", "poll", "memory"})
_MILLION: Final = 1_000_000


@dataclass
class Run:
    """One run of the suite."""

    servers: Servers
    report: Report
    console: Console
    quick: bool
    rounds: int
    conf: dict[str, Any]
    count: int | None = None
    """How many jobs a scenario has that is about so many jobs, where the command line says so."""

    def shop(
        self, broker: str = "redis", database: str | None = "postgresql", *, pending: int = 0, **conf: Any
    ) -> Shop:
        """A fresh shop; `database=None` is native Celery alone. The command line's settings come last.

        So many rows are `pending` in its database, due from tomorrow on: on PostgreSQL only.
        """
        servers = self.servers
        if database is None:
            return Shop(servers.directory, servers.broker(broker), None, {**conf, **self.conf})
        shared = 0 < pending <= _MILLION  # more takes too much of the disk to be there twice
        url = servers.database(database, servers.filled(pending, partial(self._fill, pending)) if shared else None)
        if pending and not shared:
            self._fill(pending, url)
        drop = partial(servers.drop, url)
        return Shop(servers.directory, servers.broker(broker), url, {**conf, **self.conf}, drop)

    def prepare(self, names: Sequence[str]) -> None:
        """Start and fill what these scenarios need and what takes long, at once: nothing is measured meanwhile."""
        self.servers.broker("redis")
        self.servers.drop(self.servers.database("postgresql"))
        with ThreadPoolExecutor() as pool:
            waiting: list[Future[str]] = []
            if _ON_RABBIT.intersection(names) and self.servers.why_not("rabbitmq") is None:
                waiting.append(pool.submit(self.servers.broker, "rabbitmq"))
            if _TALL.intersection(names):
                waiting.append(pool.submit(self.servers.filled, _MILLION, partial(self._fill, _MILLION)))
            for each in waiting:
                each.result()

    def _fill(self, rows: int, url: str) -> None:
        store = Store(url)
        store.migrate()
        fill.pending(store, rows)
        store.database.dispose()

    def size(self, quick: int, full: int) -> int:
        """How many of something, as the run is quick or not."""
        return quick if self.quick else full

    def sample(self, scenario: str, line: str, unit: str, value: float) -> None:
        """Keep one sample, and say so."""
        self.report.add(scenario, line, unit, value)
        self.console.print(f"  {scenario}: {line}: {value:,.4g} {unit}", markup=False, highlight=False)

    def contend(self, lines: dict[str, Callable[[], None]]) -> None:
        """Call them round after round, each round in another order: drift of the machine hits all alike."""
        names = list(lines)
        for turn in range(self.rounds):
            first = turn % len(names)
            for name in names[first:] + names[:first]:
                gc.collect()  # of what the lines before have left no line is to pay for
                lines[name]()


class Stopwatch:
    """How long a block took: `with Stopwatch() as watch: …`, then `watch.rate(count)`."""

    seconds = 0.0

    def __enter__(self) -> Stopwatch:
        self._since = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = time.perf_counter() - self._since

    def rate(self, count: int) -> float:
        """So many a second."""
        return count / self.seconds
