"""How far workers are behind what a dispatcher has sent, as the table tells.

The table is the queue, and the broker a pipe: a backlog that lies in the broker is first come, first served, and what
is due now would wait behind all of it. A dispatcher keeps a window of rows that it has handed over. While that is full,
only what has just become due goes out, and what is for others. The slower workers are, the fewer rows make a batch:
what becomes due waits behind them, and one whose message is still on its way when it counts as lost is sent again.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

__all__ = ["Flow"]

_WINDOW: Final = 2
"""How many full batches may be on their way: enough for workers to have something to do until the next look."""

_BATCH_SECONDS: Final = 0.75
"""A full batch is what workers begin within so long. Two and a half of them are on their way at the most."""

_LARGER: Final = 4
"""So many times as large as the one before is a batch at the most."""

_FIRST: Final = 250
"""How many rows the first has, of which nobody knows yet how quick workers are."""

_FEWEST: Final = 10
"""A full batch has so many rows at least, else few workers would get any."""

_STUCK_SECONDS: Final = 3.0
"""After so long without any progress the first batch is not waited for: its queue may have no worker, and others do."""

_TRIED_SECONDS: Final = 1.0
"""From then on the next batch goes out as soon as the last one moves, or after so long."""

_MOST_STUCK: Final = 10
"""No more batches than that are remembered for when they move."""

_SOME: Final = 50
_COUNTED_SECONDS: Final = 1.0
"""While most of so many of a batch are left, the whole of it is counted only so often: that takes a while itself."""

_MEASURED_SECONDS: Final = (0.1, 1.0)
"""How quick workers are is measured over so long at least: while a batch passes, and else. They tell of many rows at
once."""


@dataclass(slots=True)
class _Sent:
    ids: Sequence[str]
    left: int
    at: float
    moved_at: float
    counted_at: float = float("-inf")

    @property
    def has_passed(self) -> bool:
        return self.left * 2 <= len(self.ids)


class Flow:
    """One window of one dispatcher. `left_of` tells how many of some rows are still pending."""

    def __init__(
        self,
        left_of: Callable[[Sequence[str]], int],
        most: int,
        *,
        window: int = _WINDOW,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """No batch is to have more than `most` rows."""
        self.batch = min(_FIRST, most)
        """How many rows the next full batch has."""
        self.waits = False
        """What `full` said last, or what there is to be asked since then."""
        self._left_of = left_of
        self._most = most
        self._window = window
        self._monotonic = monotonic
        self._sent: deque[_Sent] = deque()
        """The first of them may have passed: workers come to the rest of it before they come to the next."""
        self._stuck = False
        self._begun = 0
        self._measured_at: float | None = None
        """None until workers have begun at all: they may start as this process does."""

    def sent(self, ids: Sequence[str]) -> None:
        """Rows of a full batch that were due already were handed over."""
        now = self._monotonic()
        last = self._sent[-1] if self._sent else None
        if last is not None and len(last.ids) + len(ids) <= self.batch:  # they came with many rows of others
            last.ids, last.left, last.at = [*last.ids, *ids], last.left + len(ids), now
        else:
            self._sent.append(_Sent(ids, len(ids), now, now))
        if len(self._sent) > _MOST_STUCK and self._stuck:
            del self._sent[1]
        self.waits = self._is_full()

    def caught_up(self) -> None:
        """What was found is not due yet: as many of those as there are go out."""
        self.batch = self._most

    def full(self) -> bool:
        """Whether workers are so far behind that the backlog should wait. It asks the table, if much was sent."""
        passed = False
        while self._is_full() and self._is_next():
            passed = True
        self.waits = self._is_full() and not (self._stuck and self._may_try())
        self._measure(_MEASURED_SECONDS[not passed])
        if not self.waits and self._measured_at is not None:
            self._begun, self._measured_at = 0, self._monotonic()
        return self.waits

    def _is_full(self) -> bool:
        return sum(each.left for each in self._sent) > (self._window - 0.5) * self.batch

    def _is_next(self) -> bool:
        """Count what is left of the batch at which workers are; whether it is the next one's turn."""
        has_rest = len(self._sent) > 1 and self._sent[0].has_passed
        now, first = self._monotonic(), self._sent[has_rest]
        if now - first.counted_at < _COUNTED_SECONDS and (self._stuck or self._most_are_left(first.ids)):
            return False
        first.counted_at = now
        had_passed = first.has_passed
        begun = self._count(first)
        if has_rest and self._sent[0].left:
            begun += self._count(self._sent[0])
        if begun:
            first.moved_at, self._stuck = now, False
        elif now - first.moved_at > _STUCK_SECONDS:
            self._stuck = True
        if had_passed or not first.has_passed:
            return False
        if has_rest:
            self._sent.popleft()
        for each in self._sent:
            each.moved_at = now  # it was not its turn before
        return True

    def _may_try(self) -> bool:
        last = self._sent[-1]
        return self._monotonic() - last.at > _TRIED_SECONDS or self._count(last) > 0

    def _count(self, sent: _Sent) -> int:
        before, sent.left = sent.left, self._left_of(sent.ids)
        begun = max(before - sent.left, 0)  # a row that failed to begin is pending again
        self._begun += begun
        return begun

    def _measure(self, least: float) -> None:
        if not self._begun:
            return
        now = self._monotonic()
        if self._measured_at is not None:
            seconds = now - self._measured_at
            if seconds < least:
                return
            within = int(self._begun / seconds * _BATCH_SECONDS)
            mean = (self.batch + within) // 2  # that may have been an exception
            self.batch = min(max(mean, _FEWEST), _LARGER * self.batch, self._most)
        self._begun, self._measured_at = 0, now

    def _most_are_left(self, ids: Sequence[str]) -> bool:
        some = ids[:: max(len(ids) // _SOME, 1)]
        return self._left_of(some) * 2 > len(some)
