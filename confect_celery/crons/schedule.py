"""When a cron fires: values only, no clock and no table."""

from __future__ import annotations

import datetime as dt
import zoneinfo
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Protocol

from cronsim import CronSim, CronSimError

from confect_celery.timing import DateTime, Duration

__all__ = ["MOST_COUNTED", "Fires", "InvalidSchedule", "Schedule", "schedule_of"]

MOST_COUNTED: Final = 10_000
"""After an outage so many missed fires are counted at most."""

_SHORTEST: Final = Duration.seconds(1)


class InvalidSchedule(ValueError):
    """The text or interval is no schedule; the message says why."""


@dataclass(frozen=True, slots=True)
class Fires:
    """What a look at the clock finds: the latest fire until now, how many before it were missed, and the next."""

    latest: DateTime
    missed: int
    next: DateTime


class Schedule(Protocol):
    """The times of a cron."""

    @property
    def text(self) -> str:
        """How the table tells it: two schedules are the same if and only if their texts are."""
        ...

    def first(self, now: DateTime) -> DateTime:
        """The first fire of a cron that is seen for the first time."""
        ...

    def fires(self, due: DateTime, now: DateTime) -> Fires:
        """The fires from `due`, which is one, until `now`."""
        ...


@dataclass(frozen=True, slots=True)
class Every:
    """At an interval that is anchored at the first fire, so that it does not drift."""

    interval: Duration

    @property
    def text(self) -> str:
        """As `every PT1H`."""
        return f"every {self.interval.to_iso()}"

    def first(self, now: DateTime) -> DateTime:
        """One interval after it was first seen."""
        return now + self.interval

    def fires(self, due: DateTime, now: DateTime) -> Fires:
        """Whole intervals from `due`."""
        passed = (now - due) // self.interval
        latest = due + self.interval * passed
        return Fires(latest, min(passed, MOST_COUNTED), latest + self.interval)


@dataclass(frozen=True, slots=True)
class Wall:
    """By the wall clock of a zone, in cron's own language."""

    expression: str
    zone: str

    @property
    def text(self) -> str:
        """As `0 9 * * * Europe/Paris`."""
        return f"{' '.join(self.expression.split())} {self.zone}"

    def first(self, now: DateTime) -> DateTime:
        """The next match."""
        return next(self._after(now))

    def fires(self, due: DateTime, now: DateTime) -> Fires:
        """The matches from `due`."""
        latest, missed = due, 0
        for match in self._after(due):
            if match > now:
                return Fires(latest, missed, match)
            if missed == MOST_COUNTED:
                break
            latest, missed = match, missed + 1
        return Fires(latest, missed, self.first(now))

    def _after(self, start: DateTime) -> Iterator[DateTime]:
        local = start.to_utc().astimezone(zoneinfo.ZoneInfo(self.zone))
        for match in CronSim(self.expression, local):
            yield DateTime.of(match.astimezone(dt.UTC))


def schedule_of(spec: str | Duration | dt.timedelta, zone: str = "UTC") -> Schedule:
    """The schedule of an expression of five fields (six with seconds first), or of an interval.

    Raises InvalidSchedule, for an interval under a second, a text that is no expression or never matches, and an
    unknown zone.

    >>> schedule_of("0 9 * * 1-5", "Europe/Paris").text
    '0 9 * * 1-5 Europe/Paris'
    """
    if not isinstance(spec, str):
        interval = Duration.of(spec)
        if interval < _SHORTEST:
            raise InvalidSchedule(f"an interval must be {_SHORTEST} or longer, not {interval}")
        return Every(interval)
    try:
        zoneinfo.ZoneInfo(zone)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        raise InvalidSchedule(f"{zone!r} is no time zone; name one such as 'Europe/Paris'") from None
    wall = Wall(spec, zone)
    try:
        wall.first(DateTime.of(dt.datetime(2000, 1, 1, tzinfo=dt.UTC)))
    except CronSimError as error:
        raise InvalidSchedule(f"{spec!r} is no cron expression: {error}") from None
    except StopIteration:
        raise InvalidSchedule(f"{spec!r} never matches") from None
    return wall
