"""How quickly rows go out: where many do, or workers are behind, those of a moment had better share messages."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import Final

__all__ = ["Pace", "Upcoming"]

_OVER_SECONDS: Final = 0.25
_SLICE_MICROS: Final = 50_000
_STREAM: Final = 20
"""So many within that time share messages where they can; of fewer each has one to itself."""

_QUICK: Final = 60
_MANY: Final = 150
"""So many within it keep one worker's main process busy for a good part of it, or for more than all of it, where they
come one by one: one to two milliseconds each on Redis."""

_STREAM_SECONDS: Final = 0.006
_MANY_SECONDS: Final = 0.01
"""For so long rows are gathered."""

_WAY_SECONDS: Final = 0.006
"""What is gathered goes out so long before its time, for its way to a child, and for as long as it is gathered."""

_FURTHEST_SECONDS: Final = 0.02
"""The same at the most."""

_BUSY_SECONDS: Final = 0.02
_QUEUE: Final = 2
"""Twice as long, up to `_BUSY_SECONDS`, while so many messages wait in this process for a child that is free. One waits
now and then anyway."""

_LOOK_SECONDS: Final = 0.002
"""How often it is seen whether they still do."""

_LONGEST_SECONDS: Final = 0.1
"""The same at the most, where rows wait several times as long for a worker anyway."""

_MORE: Final = 4
_LESS: Final = 0.75
"""Each look that finds workers behind has rows gathered so many times as long, and each that does not less long again:
what has let them catch up is not given up at once."""

_SPREAD: Final = 4
"""A burst is spread over at least so many messages, for more than one child may be free."""

_BETWEEN: Final = (0.3, 1.5)
"""How many seconds ago a row went out that should have started by now."""

_MOMENT_SECONDS: Final = 2 * _BUSY_SECONDS
"""What is due in a stream was due within so long."""

_EVERY_SECONDS: Final = 0.03
_FEWEST: Final = 10


class Upcoming:
    """Counts rows by the time at which they are due, in microseconds."""

    def __init__(self) -> None:
        self._slices: Counter[int] = Counter()

    def add(self, due: int) -> None:
        """One more."""
        self._slices[due // _SLICE_MICROS] += 1

    def remove(self, due: int) -> None:
        """One less."""
        at = due // _SLICE_MICROS
        self._slices[at] -= 1
        if not self._slices[at]:
            del self._slices[at]

    def after(self, now: int) -> int:
        """About how many are due within the quarter of a second after `now`."""
        first = now // _SLICE_MICROS
        return sum(self._slices[at] for at in range(first, first + int(_OVER_SECONDS * 1_000_000) // _SLICE_MICROS))


class Pace:
    """Counts what goes out, and remembers some of it, to be asked later whether it has started."""

    def __init__(
        self, waiting: Callable[[], int] = lambda: 0, *, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        """`waiting()` is how many messages wait in this process for a child of the pool."""
        self._waiting = waiting
        self._monotonic = monotonic
        self._went: deque[tuple[float, int]] = deque()
        self._count = 0
        self._behind = False
        self._longer = _STREAM_SECONDS
        self._some: deque[tuple[float, str]] = deque(maxlen=int(_BETWEEN[1] / _EVERY_SECONDS))

    def went(self, ids: Sequence[str]) -> None:
        """These rows went out now."""
        now = self._monotonic()
        self._went.append((now, len(ids)))
        self._count += len(ids)
        if not self._some or now - self._some[-1][0] >= _EVERY_SECONDS:
            self._some.append((now, ids[-1]))

    def wait(self, upcoming: int, *, shared: bool = True) -> float:
        """Seconds for which more should be gathered; 0 while few go out, and few are `upcoming`: who waited until many
        had gone would have a queue by then that takes long to go away. Where none may be `shared`, they go out at their
        time, unless they are many: to gather makes them late."""
        now = self._monotonic()
        while self._went and now - self._went[0][0] > _OVER_SECONDS:
            self._count -= self._went.popleft()[1]
        many = max(self._count, upcoming)
        gathered = self._gathered(many) if shared or many >= _QUICK else 0.0
        if not gathered or not self._went:
            return 0.0
        since, busy = now - self._went[-1][0], min(2 * gathered, _BUSY_SECONDS)
        if since < gathered or since >= busy or self._waiting() < _QUEUE:
            return max(gathered - since, 0.0)
        return min(_LOOK_SECONDS, busy - since)

    def ahead(self, upcoming: int) -> int:
        """How many microseconds before their time rows may go out, for a child to wait: 0 while few do, and few are
        `upcoming` with the first of them."""
        gathered = self._gathered(max(self._count, upcoming))
        return int(min(gathered + _WAY_SECONDS, _FURTHEST_SECONDS) * 1_000_000) if gathered else 0

    def _gathered(self, many: int) -> float:
        if many >= _MANY:
            return max(_MANY_SECONDS, self._longer)
        return self._longer if many >= _STREAM else 0.0

    def spread(self, due: int, upcoming: int) -> int:
        """Over how many messages at least these that are due should go: one where the next come in a moment anyway, as
        they did until now, or as those that are `upcoming` tell, unless more are due than come in such a moment; and
        where workers are behind."""
        many = max(upcoming, self._count)
        streams = due * _OVER_SECONDS <= many * _MOMENT_SECONDS
        return 1 if self._gathered(many) and (streams or self._behind) else _SPREAD

    def sample(self) -> list[str]:
        """Some rows that went out a moment ago; none where only few did."""
        now, (least, most) = self._monotonic(), _BETWEEN
        some = [id for at, id in list(self._some) if least <= now - at <= most]
        return some if len(some) >= _FEWEST else []

    def hear(self, pending: int, of: int) -> None:
        """So many of the sample have not started. Workers are behind from when most have not until all have."""
        self._behind = 2 * pending > of or (self._behind and pending > 0)
        if self._behind:
            self._longer = min(self._longer * _MORE, _LONGEST_SECONDS)
        else:
            self._longer = max(self._longer * _LESS, _STREAM_SECONDS)
