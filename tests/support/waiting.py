"""Waiting for a condition, never for a time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def wait_for(condition: Callable[[], T], *, within: float = 30.0, what: str | None = None) -> T:
    """Call `condition` until what it gives back is true; raise AssertionError when that takes too long."""
    until = time.monotonic() + within
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() > until:
            raise AssertionError(f"waited {within} s for {what or condition.__name__}; last seen: {found!r}")
        time.sleep(0.02)
