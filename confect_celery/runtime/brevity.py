"""Which functions are brief, as far as this process has seen them run."""

from __future__ import annotations

from typing import Final

__all__ = ["Brevity"]

_BRIEF_SECONDS: Final = 0.005
_RUNS: Final = 3
"""So many brief runs in a row make a brief function."""

_AFTER_TROUBLE: Final = -50
"""One that met a lock or a deadlock must be brief so many times more: it was not its own length that took the time."""


class Brevity:
    """Counts brief runs in a row, by the function's name."""

    def __init__(self) -> None:
        self._streaks: dict[str, int] = {}

    def ran(self, name: str, seconds: float) -> None:
        """It ran for so long."""
        self._streaks[name] = self._streaks.get(name, 0) + 1 if seconds <= _BRIEF_SECONDS else 0

    def met_trouble(self, name: str) -> None:
        """It was broken off for the sake of others."""
        self._streaks[name] = _AFTER_TROUBLE

    def is_brief(self, name: str) -> bool:
        """Whether the next run will most likely be brief."""
        return self._streaks.get(name, 0) >= _RUNS
