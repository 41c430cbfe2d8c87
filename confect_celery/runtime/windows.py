"""The windows of one dispatcher, one for each function and task.

Rows of one that takes long, or that no worker runs, wait in the table, and those of others go out meanwhile.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from confect_celery.runtime.flow import Flow

__all__ = ["Windows"]

_MOST_ASKED: Final = 8
"""Of no more windows than that it is asked in one look how much has passed; of others in the next ones."""

_MOST_KNOWN: Final = 200
"""Of more names than that those are forgotten that do not wait."""


class Windows:
    """Tells whose rows should wait, by their names, and how many of the others the next batch has."""

    def __init__(
        self,
        left_of: Callable[[Sequence[str]], int],
        most: int,
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """As a `Flow`."""
        self._left_of = left_of
        self._most = most
        self._monotonic = monotonic
        self._first = self._new().batch
        self._flows: dict[str, Flow] = {}
        """Those first about which it was asked longest ago."""
        self._likely: set[str] = set()
        """Whose rows come next, most likely."""
        self._has_caught_up = False

    def full(self) -> list[str]:
        """The names whose rows should wait. It asks the table about those of which much was sent."""
        asked = 0
        for name, flow in list(self._flows.items()):
            if flow.waits:
                asked += 1
                if asked > _MOST_ASKED:
                    continue
                self._flows[name] = self._flows.pop(name)
                if not flow.full():
                    self._likely.add(name)
            else:
                flow.full()
        return [name for name, flow in self._flows.items() if flow.waits]

    @property
    def batch(self) -> int:
        """How many rows the next full batch has: no more than any window takes of whose rows it may be."""
        likely = (self._flows[name] for name in self._likely if name in self._flows)
        others = self._most if self._has_caught_up else self._first
        return min((flow.batch for flow in likely if not flow.waits), default=others)

    def sent(self, rows: Iterable[tuple[str, str]]) -> None:
        """A full batch of rows that were due already was handed over: of each the name and the id."""
        by_name: dict[str, list[str]] = defaultdict(list)
        for name, id in rows:
            by_name[name].append(id)
        for name, ids in by_name.items():
            if name not in self._flows:
                self._forget_some()
                self._flows[name] = self._new()
            self._flows[name].sent(ids)
        self._likely, self._has_caught_up = set(by_name), False

    def caught_up(self, names: Iterable[str]) -> None:
        """Rows of these were found that are not due yet: as many as there are go out."""
        self._likely, self._has_caught_up = set(names), True
        for name in self._likely & self._flows.keys():
            self._flows[name].caught_up()

    def _new(self) -> Flow:
        return Flow(self._left_of, self._most, monotonic=self._monotonic)

    def _forget_some(self) -> None:
        if len(self._flows) >= _MOST_KNOWN:
            idle = [name for name, flow in self._flows.items() if not flow.waits]
            for name in idle or list(self._flows)[:1]:
                del self._flows[name]
