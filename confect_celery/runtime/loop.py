"""A thread that does one thing again and again, and outlives every error."""

from __future__ import annotations

import logging
import threading
import time
from abc import ABC, abstractmethod
from contextlib import AbstractContextManager, nullcontext
from typing import Final

from confect_celery.timing import jitter

__all__ = ["Loop"]

logger = logging.getLogger(__name__)

_FIRST_BACKOFF_SECONDS: Final = 0.1
_LONGEST_BACKOFF_SECONDS: Final = 10.0


class Loop(ABC):
    """Calls `tick` on a thread of its own until stopped. An error is logged and waited out, longer each time."""

    name: str

    def __init__(self) -> None:
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._ticked_at: float | None = None
        self.last_error: str | None = None
        """What the last tick failed with; None when it did not."""

    @property
    def ticked_seconds_ago(self) -> float | None:
        """How long ago a tick ended well; None when none has yet."""
        return None if self._ticked_at is None else time.monotonic() - self._ticked_at

    @abstractmethod
    def tick(self) -> float:
        """Do what is to be done now; give back in how many seconds to come again."""

    def closing(self) -> None:  # noqa: B027
        """Called on the thread when it ends."""

    def life(self) -> AbstractContextManager[object]:
        """What the thread's whole life is wrapped in."""
        return nullcontext()

    def start(self) -> None:
        """Start the thread."""
        self._thread = threading.Thread(target=self._live, name=self.name, daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """Have `tick` called now."""
        self._wake.set()

    def stop(self, timeout: float = 10.0) -> None:
        """End the thread after its current tick, waiting up to `timeout` seconds."""
        self._stopping.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join(timeout)

    def _live(self) -> None:
        with self.life():
            self._run()

    def _run(self) -> None:
        failures = 0
        while not self._stopping.is_set():
            self._wake.clear()
            try:
                pause = self.tick()
                failures = 0
                self._ticked_at, self.last_error = time.monotonic(), None
            except Exception as error:
                pause = min(_FIRST_BACKOFF_SECONDS * 2**failures, _LONGEST_BACKOFF_SECONDS) * jitter(0.5, 1)
                failures = min(failures + 1, 10)
                self.last_error = f"{type(error).__name__}: {error}"
                logger.error("%s: %s: %s; trying again in %.1f s", self.name, type(error).__name__, error, pause)
                logger.debug("%s failed", self.name, exc_info=True)
            if pause > 0:
                self._wake.wait(pause)
        try:
            self.closing()
        except Exception:
            logger.exception("%s could not close properly", self.name)
