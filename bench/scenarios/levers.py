"""What each way to be fast gives, by itself."""

from __future__ import annotations

from bench.report import Goal
from bench.run import Run

__all__ = ["GOALS", "measure"]

GOALS: list[Goal] = []


def measure(run: Run) -> None:
    """Nothing yet."""
