"""Hosts whose clocks are wrong: a process sees the time some seconds off, its monotonic clock stays the machine's.

By libfaketime, which the package of that name on PyPI brings; it is preloaded into one process and its children.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from confect_celery import Clock

__all__ = ["environment", "forget", "missing", "outside"]

_LEFT_BEHIND = ("faketime_shm_{}", "sem.faketime_sem_{}")


def _library() -> Path | None:
    found = importlib.util.find_spec("libfaketime")
    if found is None or found.origin is None:
        return None
    library = Path(found.origin).parent / "vendor" / "libfaketime" / "src" / "libfaketime.so.1"
    return library if library.exists() else None


def environment(seconds: float) -> dict[str, str]:
    """What a process' environment needs for its clock to be `seconds` ahead; nothing for a right clock."""
    if not seconds:
        return {}
    return {
        "LD_PRELOAD": str(_library()),
        "FAKETIME": f"{seconds:+}s",
        # Two names for one setting, by the library's age: without it Python's own waits never end.
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "DONT_FAKE_MONOTONIC": "1",
        "NO_FAKE_STAT": "1",
    }


def missing() -> str | None:
    """Why clocks cannot be set wrong here, and how to get that; None when they can."""
    if _library() is None:
        return "libfaketime is not installed; it is in the group `test`, for Linux"
    code = "import time; print(time.time(), time.monotonic())"
    told = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **environment(60)}, capture_output=True, text=True, check=True
    )
    wall, monotonic = map(float, told.stdout.split())
    ahead, moved = wall - time.time(), time.monotonic() - monotonic
    return None if 50 < ahead < 61 and 0 <= moved < 10 else "libfaketime has no effect on this machine"


def forget(pid: int) -> None:
    """Take away what the library of a killed process left behind: a later process may get the same id."""
    for name in _LEFT_BEHIND:
        with contextlib.suppress(FileNotFoundError):
            Path("/dev/shm", name.format(pid)).unlink()


def outside(clock: Clock, true: Callable[[], float]) -> float:
    """By how many seconds the clock misses the time between two looks at the true one around it: no load moves that."""
    before = true()
    said = clock.now().to_utc().timestamp()
    return max(before - said, said - true(), 0.0)
