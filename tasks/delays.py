"""How long the shop waits for what, in one place.

Shows: durations as values, and a service with nothing to it but data. A function asks for `delays: Delays`, and a
test or a demo gives it others: `SHOP_TIME_SCALE=3600` makes an hour pass in a second. Only the delays shrink; the
scheduler is the same.
"""

from __future__ import annotations

import os
from typing import Final

from pydantic import BaseModel

from confect_celery import Duration

__all__ = ["Delays"]

_SHORTEST: Final = Duration.seconds(1)
"""`confect_min_delay`: the scheduler refuses less."""


class Delays(BaseModel, frozen=True):
    """The shop's delays."""

    verification_reminder: Duration = Duration.hours(24)
    trial: Duration = Duration.days(14)
    session: Duration = Duration.hours(8)
    backoff: Duration = Duration.minutes(1)
    """The first wait of a retry; each further one is twice as long."""
    webhook: Duration = Duration.seconds(30)
    task: Duration = Duration.minutes(5)
    mail: Duration = Duration.seconds(1)

    @classmethod
    def from_env(cls) -> Delays:
        """The delays of this process; raises ValueError when `SHOP_TIME_SCALE` is no positive number."""
        return cls().shrunk(float(os.environ.get("SHOP_TIME_SCALE", "1")))

    def shrunk(self, times: float) -> Delays:
        """All delays, `times` times shorter, but none shorter than a second."""
        if not times > 0:
            raise ValueError(f"SHOP_TIME_SCALE must be a positive number, not {times}")
        return Delays(**{name: max(delay / times, _SHORTEST) for name, delay in self})
