"""Where the time comes from."""

from __future__ import annotations

import datetime as dt
import threading
from typing import Protocol

from confect_celery.errors import InvalidTime
from confect_celery.timing.date_time import DateTime
from confect_celery.timing.duration import Duration

__all__ = ["Clock", "SettableClock", "SystemClock"]


class Clock(Protocol):
    """Tells the time. Everything that asks for the present asks one of these; any object with `now` is one.

    >>> clock: Clock = SettableClock(DateTime.parse("2030-01-01T00:00:00Z"))
    >>> str(DateTime.now("Europe/Paris", clock=clock))
    '2030-01-01T01:00:00+01:00[Europe/Paris]'
    """

    def now(self) -> DateTime:
        """The present instant, in UTC."""
        ...


class SystemClock:
    """The machine's clock plus an `offset`, so that hosts whose clocks differ agree with their one database.

    `now` and `adjust` may be called from any thread. Like the machine's clock it may step back.

    >>> clock = SystemClock()
    >>> clock.adjust(Duration.hours(1))
    >>> clock.now() > DateTime.now() + Duration.minutes(59)
    True
    """

    def __init__(self, offset: Duration = Duration.zero) -> None:
        # Read once and replaced whole, so no thread can see half of a change.
        self.offset = Duration.of(offset)

    def now(self) -> DateTime:
        """The machine's time plus the offset, in UTC."""
        return DateTime.now() + self.offset

    def adjust(self, offset: Duration) -> None:
        """From now on be `offset` ahead of the machine's clock, whatever the offset was."""
        self.offset = Duration.of(offset)


class SettableClock:
    """A clock that stands still until it is moved: for tests. It may be shared between threads.

    Without a `start` it stands at the moment it was made.

    >>> clock = SettableClock(DateTime.parse("2030-01-01T00:00:00Z"))
    >>> clock.advance(Duration.hours(1))
    >>> str(clock.now())
    '2030-01-01T01:00:00Z'
    """

    def __init__(self, start: DateTime | None = None) -> None:
        self._lock = threading.Lock()
        self._now = DateTime.now() if start is None else DateTime.of(start).in_zone("UTC")

    def now(self) -> DateTime:
        """Where it stands, in UTC."""
        return self._now

    def set(self, when: DateTime) -> None:
        """Stand at `when`, be it earlier or later."""
        utc = DateTime.of(when).in_zone("UTC")
        with self._lock:
            self._now = utc

    def advance(self, duration: Duration | dt.timedelta) -> None:
        """Move on by `duration`; a negative one raises InvalidTime."""
        ahead = Duration.of(duration)
        if ahead < Duration.zero:
            raise InvalidTime(ahead, "advance() only moves on; set() may go back")
        with self._lock:
            self._now += ahead
