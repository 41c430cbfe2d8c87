"""Nothing starts before its time, whatever its message says."""

from __future__ import annotations

import time
from typing import Final

from confect_celery.timing import Clock, DateTime, Duration

__all__ = ["A_MOMENT", "wait_until"]

A_MOMENT: Final = Duration.millis(50)
"""An outbox sends what is gathered a moment before its time, for a child to wait: less than this."""


def wait_until(due: DateTime, clock: Clock, longest: Duration) -> bool:
    """Sleep until `due`; False, without sleeping on, where that is further off than `longest`.

    Clocks of hosts differ by a little, and a message may be published a moment ahead: that moment is waited for.
    """
    give_up_at = time.monotonic() + longest.total_seconds()
    while (wait := (due - clock.now()).total_seconds()) > 0:
        if time.monotonic() + wait > give_up_at:
            return False
        time.sleep(wait)
    return True
