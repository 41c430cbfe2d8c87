"""What a scenario is given, and where it puts what it measures."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rich.console import Console

from bench.contenders import Shop
from bench.report import Report
from bench.servers import Servers

__all__ = ["Run", "Stopwatch"]


@dataclass
class Run:
    """One run of the suite."""

    servers: Servers
    report: Report
    console: Console
    quick: bool
    rounds: int
    conf: dict[str, Any]

    def shop(self, broker: str = "redis", database: str | None = "postgresql", **conf: Any) -> Shop:
        """A fresh shop; `database=None` is native Celery alone. The command line's settings come last."""
        url = None if database is None else self.servers.database(database)
        return Shop(self.servers.directory, self.servers.broker(broker), url, {**conf, **self.conf})

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
