"""Where the time comes from."""

from __future__ import annotations

import threading
import time
from typing import Protocol

from confect_celery.timing.date_time import DateTime
from confect_celery.timing.duration import Duration

__all__ = ["Clock", "SettableClock", "SystemClock"]


class Clock(Protocol):
    """Tells the time; everything that needs it takes a Clock."""

    def now(self) -> DateTime:
        """The present instant, in UTC."""
        ...


class SystemClock:
    """The machine's clock, corrected by an offset so that hosts agree with their database."""

    def __init__(self, offset: Duration = Duration.zero) -> None:
        self.offset = offset

    def now(self) -> DateTime:
        """The machine's time plus the offset."""
        return DateTime.from_epoch_micros(time.time_ns() // 1000 + self.offset.to_micros())

    def adjust(self, offset: Duration) -> None:
        """From now on be `offset` ahead of the machine."""
        self.offset = offset


class SettableClock:
    """A clock that stands still until it is told to move; for tests.

    >>> clock = SettableClock(DateTime.parse("2030-01-01T00:00:00Z"))
    >>> clock.advance(Duration.hours(1))
    >>> str(clock.now())
    '2030-01-01T01:00:00Z'
    """

    def __init__(self, start: DateTime | None = None) -> None:
        self._now = (start or DateTime.now()).in_zone("UTC")
        self._lock = threading.Lock()

    def now(self) -> DateTime:
        """The time it was set to."""
        return self._now

    def set(self, when: DateTime) -> None:
        """Set it, forwards or backwards."""
        with self._lock:
            self._now = when.in_zone("UTC")

    def advance(self, duration: Duration) -> None:
        """Move it forwards; a negative duration raises ValueError."""
        if duration < Duration.zero:
            raise ValueError("advance() only moves forwards; use set()")
        with self._lock:
            self._now = self._now + duration
