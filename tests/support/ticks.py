"""A module's `time` in which nothing takes long unless the test says so, however slow the machine is."""

from __future__ import annotations

__all__ = ["Ticks"]


class Ticks:
    """To be patched in for `time`."""

    def __init__(self) -> None:
        self._now = 0.0

    def monotonic(self) -> float:
        """How long was slept so far."""
        return self._now

    def sleep(self, seconds: float) -> None:
        """So much has passed."""
        self._now += seconds
