"""Waits that differ, so that many who wait for the same thing do not all come back at once."""

from __future__ import annotations

import random
from typing import Final

__all__ = ["jitter"]

# Not the module's own numbers: a shop may have seeded those, Hypothesis minds who draws from them beside a test, and
# children that a process forks would all wait for as long.
_dice: Final = random.SystemRandom()


def jitter(least: float, most: float) -> float:
    """A factor between these, another each time, to multiply a wait with."""
    return _dice.uniform(least, most)
