"""A point in time, seen in a zone."""

from __future__ import annotations

import calendar
import datetime as dt
import functools
import re
import time
import zoneinfo
from typing import TYPE_CHECKING, Any, Final, Literal, final, get_args, overload

from confect_celery.errors import InvalidTime, NaiveDateTime, NonexistentTime
from confect_celery.timing.duration import Duration, Micros, _new, _set_micros

if TYPE_CHECKING:
    from pydantic import GetJsonSchemaHandler
    from pydantic.json_schema import JsonSchemaValue
    from pydantic_core import CoreSchema

    from confect_celery.timing.clock import Clock

__all__ = ["DateTime", "Disambiguate"]

Disambiguate = Literal["compatible", "earlier", "later", "reject"]
"""Which instant a wall time means that a change of the clocks skips or repeats (as in ECMAScript's Temporal).

`earlier` and `later` are the two readings: of a skipped time, it shifted back or forward by the gap. `compatible` is
the later one of a skipped time, the earlier one of a repeated time. `reject` raises NonexistentTime.
"""

_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_MICRO: Final = dt.timedelta(microseconds=1)
_timedelta: Final = dt.timedelta
_FIRST: Final = (dt.datetime.min.replace(tzinfo=dt.UTC) - _EPOCH) // _MICRO
_LAST: Final = (dt.datetime.max.replace(tzinfo=dt.UTC) - _EPOCH) // _MICRO
_OFFSET: Final = re.compile(r"[+-]\d\d[\d:.]*", re.ASCII)
_SUFFIXED: Final = re.compile(r"(.+)\[([^\[\]]+)\]")


@functools.lru_cache(maxsize=1024)
def _lookup(zone: str) -> tuple[str, dt.tzinfo]:
    """The name a zone goes by here, and its rules."""
    if zone == "UTC":
        return zone, dt.UTC
    try:
        if _OFFSET.fullmatch(zone):
            return _fixed(dt.datetime.fromisoformat(f"2000-01-01T00:00{zone}"))
        return zone, zoneinfo.ZoneInfo(zone)
    except (zoneinfo.ZoneInfoNotFoundError, OSError, TypeError, ValueError):
        reason = "no such time zone; they are called like Europe/Paris (where the system has none: pip install tzdata)"
        raise InvalidTime(zone, reason) from None


def _fixed(value: dt.datetime) -> tuple[str, dt.tzinfo]:
    """The zone of an aware datetime as a fixed offset, whatever its class."""
    tz = dt.timezone(value.utcoffset() or dt.timedelta(0))
    return tz.tzname(None).removeprefix("UTC") or "UTC", tz


@final
class DateTime(Micros):
    """An instant, exact to the microsecond, and the zone it is seen in: UTC unless said otherwise.

    Equality, order and hash go by the instant alone. None is naive, and none lies outside the years 1 to 9999: a
    result that does raises InvalidTime.

    >>> start = DateTime.parse("2026-03-28T09:00:00+01:00[Europe/Paris]")
    >>> str(start + Duration.days(1))
    '2026-03-29T10:00:00+02:00[Europe/Paris]'
    >>> str(start.add(days=1))
    '2026-03-29T09:00:00+02:00[Europe/Paris]'
    """

    __slots__ = ("_zone",)
    _zone: str

    def __init__(self) -> None:
        raise InvalidTime("DateTime()", "use DateTime.now(), DateTime.parse('…Z') or DateTime.of(datetime)")

    @classmethod
    def _make(cls, micros: int, zone: str) -> DateTime:
        made: DateTime = _new(cls)
        _set_micros(made, micros)
        _set_zone(made, zone)
        if zone == "UTC" and _FIRST <= micros <= _LAST:
            return made
        try:
            made.to_datetime()
        except OverflowError:
            raise InvalidTime(f"{micros} microseconds after 1970", f"outside the years 1 to 9999 in {zone}") from None
        return made

    @classmethod
    def now(cls, zone: str | None = None, *, clock: Clock | None = None) -> DateTime:
        """The present by `clock`, or else by the machine, seen in `zone`."""
        now = cls._make(time.time_ns() // 1000, "UTC") if clock is None else clock.now()
        return now if zone is None else now.in_zone(zone)

    @classmethod
    def of(cls, value: dt.datetime | DateTime) -> DateTime:
        """An aware datetime in its zone, or a DateTime as it is. A tzinfo that is no ZoneInfo becomes its offset.

        Raises NaiveDateTime for a datetime without a zone, InvalidTime for anything else.
        """
        if isinstance(value, DateTime):
            return value
        if not isinstance(value, dt.datetime):
            raise InvalidTime(value, "a time is a DateTime or an aware datetime")
        if value.tzinfo is dt.UTC:
            return cls._make((value - _EPOCH) // _MICRO, "UTC")
        if value.utcoffset() is None:
            raise NaiveDateTime(value)
        key = value.tzinfo.key if isinstance(value.tzinfo, zoneinfo.ZoneInfo) else None
        return cls._make((value - _EPOCH) // _MICRO, _lookup(key)[0] if key else _fixed(value)[0])

    @classmethod
    def parse(cls, text: str) -> DateTime:
        """Read RFC 3339 or ISO 8601 with `Z` or an offset, also with a zone: `2026-03-08T09:00+01:00[Europe/Paris]`.

        The offset fixes the instant, even where the zone would have another one: a stored time stays the same when a
        country changes its rules. Digits past the microseconds are cut. Raises NaiveDateTime without an offset,
        InvalidTime for what cannot be read.
        """
        try:
            suffixed = _SUFFIXED.fullmatch(text)
            value = dt.datetime.fromisoformat((suffixed[1] if suffixed else text).upper())
        except (AttributeError, TypeError, ValueError):
            raise InvalidTime(text, "not a time such as 2026-03-08T12:00:00Z") from None
        if value.utcoffset() is None:
            raise NaiveDateTime(text)
        zone = _lookup(suffixed[2])[0] if suffixed else _fixed(value)[0]
        return cls._make((value - _EPOCH) // _MICRO, zone)

    @classmethod
    def from_epoch_millis(cls, millis: float) -> DateTime:
        """So many milliseconds after 1970-01-01T00:00:00Z, in UTC."""
        return cls._make(Duration.millis(millis).to_micros(), "UTC")

    @classmethod
    def from_epoch_micros(cls, micros: int) -> DateTime:
        """So many microseconds after 1970-01-01T00:00:00Z, in UTC."""
        ours = type(micros) is int and _FIRST <= micros <= _LAST
        return cls._make(micros if ours else Duration.micros(micros)._micros, "UTC")

    @classmethod
    def from_parts(
        cls,
        year: int,
        month: int,
        day: int,
        hour: int = 0,
        minute: int = 0,
        second: int = 0,
        microsecond: int = 0,
        *,
        zone: str = "UTC",
        disambiguate: Disambiguate = "compatible",
    ) -> DateTime:
        """The instant at which a clock on the wall in `zone` shows this.

        Raises InvalidTime for a part out of range, NonexistentTime under "reject".
        """
        if disambiguate not in get_args(Disambiguate):
            raise InvalidTime(disambiguate, "disambiguate is 'compatible', 'earlier', 'later' or 'reject'")
        name, tz = _lookup(zone)
        try:
            wall = dt.datetime(year, month, day, hour, minute, second, microsecond, tzinfo=tz)
        except (OverflowError, TypeError, ValueError) as error:
            raise InvalidTime(f"{year}-{month}-{day} {hour}:{minute}:{second}.{microsecond}", str(error)) from None
        before, after = ((wall.replace(fold=fold) - _EPOCH) // _MICRO for fold in (0, 1))
        # fold=0 takes the offset before the change, fold=1 the one after it. In a gap that makes fold=0 the later one.
        twice = before < after
        if before != after and disambiguate == "reject":
            raise NonexistentTime(wall.replace(tzinfo=None).isoformat(), name, twice)
        if disambiguate == "compatible":
            return cls._make(before, name)
        return cls._make(max(before, after) if disambiguate == "later" else min(before, after), name)

    def to_datetime(self) -> dt.datetime:
        """An aware datetime in its zone."""
        return self.to_utc().astimezone(_lookup(self._zone)[1])

    def to_utc(self) -> dt.datetime:
        """An aware datetime in UTC."""
        return _EPOCH + _timedelta(0, 0, self._micros)

    @property
    def epoch_micros(self) -> int:
        """Microseconds since 1970-01-01T00:00:00Z."""
        return self._micros

    @property
    def epoch_millis(self) -> int:
        """Whole milliseconds since 1970-01-01T00:00:00Z, rounded down."""
        return self._micros // 1000

    @property
    def zone(self) -> str:
        """Its zone: a name as `UTC` and `Europe/Paris`, or an offset as `+02:00`."""
        return self._zone

    @property
    def year(self) -> int:
        """The year in its zone; so are the parts that follow."""
        return self.to_datetime().year

    @property
    def month(self) -> int:
        """1 to 12."""
        return self.to_datetime().month

    @property
    def day(self) -> int:
        """The day of the month, 1 to 31."""
        return self.to_datetime().day

    @property
    def hour(self) -> int:
        """0 to 23."""
        return self.to_datetime().hour

    @property
    def minute(self) -> int:
        """0 to 59."""
        return self.to_datetime().minute

    @property
    def second(self) -> int:
        """0 to 59."""
        return self.to_datetime().second

    @property
    def microsecond(self) -> int:
        """0 to 999,999."""
        return self.to_datetime().microsecond

    @property
    def weekday(self) -> int:
        """0 for Monday to 6 for Sunday, as in Python's datetime and calendar."""
        return self.to_datetime().weekday()

    def to_iso(self) -> str:
        """ISO 8601 in its zone: `Z` for UTC, else the offset and the zone's name in brackets. `parse` reads it back."""
        if self._zone == "UTC":
            return self.to_utc().replace(tzinfo=None).isoformat() + "Z"
        suffix = "" if _OFFSET.fullmatch(self._zone) else f"[{self._zone}]"
        return self.to_datetime().isoformat() + suffix

    def in_zone(self, zone: str) -> DateTime:
        """The same instant seen in `zone`; raises InvalidTime for an unknown one."""
        return self._make(self._micros, _lookup(zone)[0])

    def add(
        self,
        *,
        years: int = 0,
        months: int = 0,
        weeks: int = 0,
        days: int = 0,
        hours: float = 0,
        minutes: float = 0,
        seconds: float = 0,
        disambiguate: Disambiguate = "compatible",
    ) -> DateTime:
        """First years to days by the calendar of its zone, at the same wall time; then hours to seconds, exactly.

        A day that the month reached does not have becomes its last: 31 January and a month is 28 February.
        """
        exact = Duration.hours(hours) + Duration.minutes(minutes) + Duration.seconds(seconds)
        if not all(isinstance(count, int) for count in (years, months, weeks, days)):
            raise InvalidTime(self, "years, months, weeks and days are whole; a Duration may have half of one")
        wall = self.to_datetime()
        year, month = divmod(wall.year * 12 + wall.month - 1 + years * 12 + months, 12)
        try:
            last = calendar.monthrange(year, month + 1)[1]
            date = dt.date(year, month + 1, min(wall.day, last)) + dt.timedelta(weeks=weeks, days=days)
        except (OverflowError, ValueError) as error:
            raise InvalidTime(self, f"{error}, adding to it") from None
        if date == wall.date():
            return self + exact  # nothing to disambiguate: of a repeated hour's two passes it stays in its own
        time_of_day = (wall.hour, wall.minute, wall.second, wall.microsecond)
        moved = self.from_parts(
            date.year, date.month, date.day, *time_of_day, zone=self._zone, disambiguate=disambiguate
        )
        return moved + exact

    def set(
        self,
        *,
        year: int | None = None,
        month: int | None = None,
        day: int | None = None,
        hour: int | None = None,
        minute: int | None = None,
        second: int | None = None,
        microsecond: int | None = None,
        disambiguate: Disambiguate = "compatible",
    ) -> DateTime:
        """The wall time with these parts replaced; the others stay, smaller ones too.

        Raises InvalidTime for a part out of range (it never clamps), NonexistentTime under "reject".
        """
        wall = self.to_datetime()
        given = (year, month, day, hour, minute, second, microsecond)
        present = (wall.year, wall.month, wall.day, wall.hour, wall.minute, wall.second, wall.microsecond)
        parts = (old if new is None else new for new, old in zip(given, present, strict=True))
        if disambiguate == "compatible" and wall.fold:
            disambiguate = "later"  # as Temporal: in the repeated hour's second pass, setting the minute stays in it
        return self.from_parts(*parts, zone=self._zone, disambiguate=disambiguate)

    def __add__(self, other: Duration | dt.timedelta) -> DateTime:
        if not isinstance(other, Duration):
            if not isinstance(other, dt.timedelta):
                return NotImplemented
            other = Duration.of(other)
        return self._make(self._micros + other._micros, self._zone)

    __radd__ = __add__

    @overload
    def __sub__(self, other: DateTime) -> Duration: ...
    @overload
    def __sub__(self, other: Duration | dt.timedelta) -> DateTime: ...
    def __sub__(self, other: Any) -> Any:
        if isinstance(other, DateTime):
            return Duration._whole(self._micros - other._micros)
        if not isinstance(other, (Duration, dt.timedelta)):
            return NotImplemented
        return self._make(self._micros - Duration.of(other)._micros, self._zone)

    def __str__(self) -> str:
        return self.to_iso()

    def __repr__(self) -> str:
        return f"DateTime.parse({self.to_iso()!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return DateTime._make, (self._micros, self._zone)

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        examples = ["2026-03-08T12:00:00Z", "2026-03-08T09:00:00+01:00[Europe/Paris]"]
        return {"type": "string", "format": "date-time", "examples": examples}


_set_zone: Final[Any] = vars(DateTime)["_zone"].__set__

# The slot itself: a call reads it half a dozen times, and each would be a call of a function.
DateTime.epoch_micros = vars(Micros)["_micros"]  # type: ignore[method-assign]
