"""What can be measured, by name, in the order of a whole run."""

from __future__ import annotations

from types import ModuleType
from typing import Final

from bench.scenarios import calls, cancel, drain, instant, lag, levers, memory, poll, schedule

__all__ = ["SCENARIOS"]

SCENARIOS: Final[dict[str, ModuleType]] = {
    "schedule": schedule,
    "drain": drain,
    "lag": lag,
    "calls": calls,
    "instant": instant,
    "cancel": cancel,
    "poll": poll,
    "memory": memory,
    "levers": levers,
}
"""Each has `GOALS` and `measure(run)`."""
