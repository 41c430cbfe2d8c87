"""When each task started: one O_APPEND write a start, so that what is measured costs every contender the same."""

from __future__ import annotations

import os
import time
from pathlib import Path

from bench.report import percentile

__all__ = ["Starts", "record"]

_file: tuple[int, int] | None = None


def record(n: int) -> None:
    """Called by each task's body: it is the n-th, and starts now."""
    global _file
    now, pid = time.time(), os.getpid()
    if _file is None or _file[0] != pid:
        _file = pid, os.open(os.environ["BENCH_STARTS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    os.write(_file[1], b"%d %.6f\n" % (n, now))


class Starts:
    """The file that `record` writes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.touch()
        path.chmod(0o666)

    def clear(self) -> None:
        os.truncate(self.path, 0)

    def count(self) -> int:
        return self.path.read_bytes().count(b"\n")

    def all(self) -> list[tuple[int, float]]:
        """(n, epoch seconds) of every start; a task that started twice is there twice."""
        lines = (line.split() for line in self.path.read_text().split("\n")[:-1])  # the last may be half of one
        return [(int(n), float(at)) for n, at in lines]

    def wait(self, count: int, within: float) -> None:
        """Wait for so many starts; raises TimeoutError."""
        until = time.monotonic() + within
        while (seen := self.count()) < count:
            if time.monotonic() > until:
                raise TimeoutError(f"{seen} of {count} tasks started within {within} s")
            time.sleep(0.1)

    def rate(self) -> float:
        """Tasks a second between the 5th and the 95th percentile of the starts: without the beginning and the tail."""
        at = [each for _, each in self.all()]
        low, high = percentile(at, 0.05), percentile(at, 0.95)
        return 0.9 * len(at) / max(high - low, 1e-9)

    def once_each(self, count: int) -> None:
        """Raise AssertionError unless each of `count` tasks started exactly once."""
        seen = sorted(n for n, _ in self.all())
        assert seen == list(range(count)), f"{len(seen)} starts of {len(set(seen))} tasks, {count} were asked for"
