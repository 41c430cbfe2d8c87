"""From which due time on a dispatcher needs to look.

While somebody holds an old snapshot open (a long report, a dump, a forgotten transaction), PostgreSQL keeps the index
entries of all rows that were due once, and a look for due rows passes over each of them. A look that begins at a floor
does not. Below it lies only what was committed late: a full look finds that, as often as it is cheap.
"""

from __future__ import annotations

from typing import Final

from confect_celery.timing import DateTime, Duration

__all__ = ["Floor"]

_GRACE: Final = Duration.seconds(5)
"""How long a transaction may hold back a row without a full look being needed to find it."""

_SHARE: Final = 100
"""Full looks take at most one part in so many of the time."""

_LONGEST: Final = Duration.seconds(10)
"""However slow they are, so often they happen: no row waits longer for being committed late."""


class Floor:
    """Rises with what each look finds. Where full looks are cheap, as they are without an old snapshot, every look is
    one. Times are the database's, as they are for the looks themselves."""

    def __init__(self) -> None:
        self._floor: DateTime | None = None
        self._full_at: DateTime | None = None

    def since(self, now: DateTime) -> DateTime | None:
        """Where the next look may begin; None when it must be a full one."""
        return None if self._full_at is None or now >= self._full_at else self._floor

    def looked(self, now: DateTime, since: DateTime | None, oldest: DateTime | None, took: Duration) -> None:
        """A look at `now` from `since` on found `oldest` to be the first row that waits, and took so long."""
        first = now if oldest is None else min(oldest, now)
        floor = first - _GRACE
        self._floor = floor if since is None else max(floor, since)
        if since is None:
            self._full_at = now + min(took * _SHARE, _LONGEST)
