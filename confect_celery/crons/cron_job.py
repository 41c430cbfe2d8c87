"""One cron: its name, its schedule, and what it runs."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from confect_celery.crons.schedule import InvalidSchedule, Schedule, schedule_of
from confect_celery.errors import InvalidCron
from confect_celery.timing import Duration

__all__ = ["CronJob"]

_LONGEST_NAME = 255


@dataclass(frozen=True)
class CronJob:
    """Runs `function` with `args` whenever `spec` says so.

    `spec` is a cron expression of five fields (six with seconds first) in the time zone `zone`, or an interval. What
    `function` and `args` may be is what `run_after` takes. A fire is skipped while the last run is pending or running,
    unless `overlap`.

    Raises InvalidCron for a name or spec that cannot be.

    >>> CronJob("clear stale sessions", "0 * * * *", "a function stands here").schedule.text
    '0 * * * * UTC'
    """

    name: str
    spec: str | Duration | dt.timedelta
    function: Any
    args: BaseModel | Mapping[str, Any] | None = None
    zone: str = "UTC"
    overlap: bool = False

    def __post_init__(self) -> None:
        if not self.name or len(self.name) > _LONGEST_NAME:
            raise InvalidCron(self.name, f"a name has 1 to {_LONGEST_NAME} characters")
        try:
            schedule = schedule_of(self.spec, self.zone)
        except (InvalidSchedule, TypeError) as error:
            raise InvalidCron(self.name, str(error)) from None
        object.__setattr__(self, "_schedule", schedule)

    @property
    def schedule(self) -> Schedule:
        """When it fires."""
        schedule: Schedule = self.__dict__["_schedule"]
        return schedule
