"""How far workers are behind what a dispatcher has sent, as the table tells.

The table is the queue, and the broker a pipe: a backlog that lies in the broker is first come, first served, and what
is due now would wait behind all of it. A dispatcher keeps a window of rows that it has handed over. While that is full,
only rows that have just become due go out.
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

_STUCK_SECONDS: Final = 3.0
"""After so long without any progress the first batch is not waited for: its queue may have no worker, and others do."""


_SOME: Final = 50
_COUNTED_SECONDS: Final = 1.0
"""While most of so many of a batch are left, the whole of it is counted only so often: that takes a while itself."""


@dataclass(slots=True)
class _Sent:
    ids: Sequence[str]
    left: int
    moved_at: float
    counted_at: float = float("-inf")


class Flow:
    """The window of one dispatcher. `left_of` tells how many of some rows are still pending."""

    def __init__(
        self,
        left_of: Callable[[Sequence[str]], int],
        *,
        window: int = _WINDOW,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._left_of = left_of
        self._window = window
        self._monotonic = monotonic
        self._sent: deque[_Sent] = deque()
        self._stuck = False

    def sent(self, ids: Sequence[str]) -> None:
        """A full batch was handed over."""
        self._sent.append(_Sent(ids, len(ids), self._monotonic()))

    def full(self) -> bool:
        """Whether workers are so far behind that the backlog should wait. It asks the table, if much was sent."""
        while len(self._sent) >= self._window:
            first, now = self._sent[0], self._monotonic()
            if not self._stuck and now - first.counted_at < _COUNTED_SECONDS and self._most_are_left(first.ids):
                return True
            first.counted_at = now
            left = self._left_of(first.ids)
            if left * 2 <= len(first.ids):
                self._stuck = False
            elif left < first.left:
                first.left, first.moved_at, self._stuck = left, now, False
                return True
            elif not self._stuck and now - first.moved_at <= _STUCK_SECONDS:
                return True
            else:
                self._stuck = True
            self._sent.popleft()
            if self._sent:
                self._sent[0].moved_at = now  # it was not its turn before
        return False

    def _most_are_left(self, ids: Sequence[str]) -> bool:
        some = ids[:: max(len(ids) // _SOME, 1)]
        return self._left_of(some) * 2 > len(some)
