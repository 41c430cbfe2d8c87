"""A point in time, seen in a zone."""

from __future__ import annotations

import calendar
import datetime as dt
import functools
import re
import time
import zoneinfo
from typing import TYPE_CHECKING, Any, Final, Literal, overload

from pydantic_core import core_schema

from confect_celery.errors import InvalidTime, NaiveDateTime, NonexistentTime
from confect_celery.timing.duration import Duration

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler

    from confect_celery.timing.clock import Clock

__all__ = ["DateTime", "Disambiguate"]

Disambiguate = Literal["compatible", "earlier", "later", "reject"]
"""Which instant a wall time means that a change of the clocks skips or repeats (as in ECMAScript's Temporal).

`compatible`: the later reading of a skipped time, the earlier of a repeated one. `reject` raises NonexistentTime.
"""

_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_MICRO: Final = dt.timedelta(microseconds=1)
_FIRST: Final = (dt.datetime(1, 1, 2, tzinfo=dt.UTC) - _EPOCH) // _MICRO
_LAST: Final = (dt.datetime(9999, 12, 30, tzinfo=dt.UTC) - _EPOCH) // _MICRO
_OFFSET: Final = re.compile(r"([+-])(\d\d):(\d\d)")
_SUFFIX: Final = re.compile(r"(.+)\[([^\]]+)\]")


@functools.lru_cache(maxsize=1024)
def _tzinfo(zone: str) -> dt.tzinfo:
    if zone == "UTC":
        return dt.UTC
    if fixed := _OFFSET.fullmatch(zone):
        sign = -1 if fixed[1] == "-" else 1
        return dt.timezone(sign * dt.timedelta(hours=int(fixed[2]), minutes=int(fixed[3])))
    try:
        return zoneinfo.ZoneInfo(zone)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        raise InvalidTime(zone, "no such time zone; zones are called like Europe/Paris") from None


def _zone_of(value: dt.datetime) -> str:
    key = getattr(value.tzinfo, "key", None)
    if isinstance(key, str):
        return "UTC" if key in ("Etc/UTC", "Z") else key
    offset = value.utcoffset() or dt.timedelta(0)
    if not offset:
        return "UTC"
    minutes, rest = divmod(abs(offset) // dt.timedelta(seconds=1), 60)
    if rest:  # no zone of today has an offset with seconds: keep the instant
        return "UTC"
    return f"{'-' if offset < dt.timedelta(0) else '+'}{minutes // 60:02d}:{minutes % 60:02d}"


class DateTime:
    """An instant, exact to the microsecond, and the zone it is seen in: UTC unless said otherwise.

    Two are equal, and sort, by their instant alone. A naive one cannot be made. Results outside the years 1 to 9999
    raise InvalidTime.

    >>> start = DateTime.parse("2026-03-28T09:00:00+01:00[Europe/Paris]")
    >>> str(start + Duration.days(1))
    '2026-03-29T10:00:00+02:00[Europe/Paris]'
    >>> str(start.add(days=1))
    '2026-03-29T09:00:00+02:00[Europe/Paris]'
    """

    __slots__ = ("_micros", "_zone")
    _micros: int
    _zone: str

    def __init__(self) -> None:
        raise InvalidTime("DateTime()", "use DateTime.now(), DateTime.parse('…') or DateTime.of(datetime)")

    @classmethod
    def _make(cls, micros: int, zone: str) -> DateTime:
        if not _FIRST <= micros <= _LAST:
            raise InvalidTime(micros, "outside the years 1 to 9999")
        made = object.__new__(cls)
        object.__setattr__(made, "_micros", micros)
        object.__setattr__(made, "_zone", zone)
        return made

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"DateTime is immutable; use set() for a changed one (tried to change {name})")

    __delattr__ = __setattr__  # type: ignore[assignment]

    # -- making one

    @classmethod
    def now(cls, zone: str | None = None, *, clock: Clock | None = None) -> DateTime:
        """The present, by `clock` or else the machine's, seen in `zone`."""
        now = clock.now() if clock is not None else cls._make(time.time_ns() // 1000, "UTC")
        return now.in_zone(zone) if zone is not None else now

    @classmethod
    def of(cls, value: dt.datetime | DateTime) -> DateTime:
        """An aware datetime with its zone, or a DateTime as it is.

        Raises NaiveDateTime without a zone, InvalidTime for anything else.
        """
        if isinstance(value, DateTime):
            return value
        if not isinstance(value, dt.datetime):
            raise InvalidTime(value, "a time is a DateTime or an aware datetime")
        if value.utcoffset() is None:
            raise NaiveDateTime(value)
        return cls._make((value - _EPOCH) // _MICRO, _zone_of(value))

    @classmethod
    def parse(cls, text: str) -> DateTime:
        """Read ISO 8601 with `Z` or an offset, and an optional zone as in `2026-03-08T09:00+01:00[Europe/Paris]`.

        Raises NaiveDateTime without either, InvalidTime when it cannot be read.
        """
        suffix = _SUFFIX.fullmatch(text)
        plain, zone = (suffix[1], suffix[2]) if suffix else (text, None)
        try:
            value = dt.datetime.fromisoformat(plain)
        except (ValueError, TypeError):
            raise InvalidTime(text, "not a time such as 2026-03-08T12:00:00Z") from None
        parsed = cls.of(value)
        return parsed.in_zone(zone) if zone else parsed

    @classmethod
    def from_epoch_millis(cls, millis: float) -> DateTime:
        """So many milliseconds after 1970-01-01T00:00:00Z."""
        return cls.from_epoch_micros(Duration.millis(millis).to_micros())

    @classmethod
    def from_epoch_micros(cls, micros: int) -> DateTime:
        """So many microseconds after 1970-01-01T00:00:00Z."""
        return cls._make(micros, "UTC")

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
        """The instant at which a clock on the wall in `zone` shows this."""
        tz = _tzinfo(zone)
        try:
            wall = dt.datetime(year, month, day, hour, minute, second, microsecond, tzinfo=tz)
        except ValueError as error:
            raise InvalidTime((year, month, day, hour, minute, second), str(error)) from None
        first, second_reading = (wall.replace(fold=fold).astimezone(dt.UTC) for fold in (0, 1))
        if first != second_reading:
            # Python reads a skipped time with the offset before the change for fold=0: that is the later instant.
            twice = first < second_reading
            if disambiguate == "reject":
                raise NonexistentTime(wall.replace(tzinfo=None), zone, twice)
            late = disambiguate == "later" or (disambiguate == "compatible" and not twice)
            first = max(first, second_reading) if late else min(first, second_reading)
        return cls._make((first - _EPOCH) // _MICRO, zone)

    # -- reading it

    def to_datetime(self) -> dt.datetime:
        """As an aware datetime in its zone."""
        return self.to_utc().astimezone(_tzinfo(self._zone))

    def to_utc(self) -> dt.datetime:
        """As an aware datetime in UTC."""
        return _EPOCH + dt.timedelta(microseconds=self._micros)

    @property
    def epoch_micros(self) -> int:
        """Microseconds since 1970-01-01T00:00:00Z."""
        return self._micros

    @property
    def epoch_millis(self) -> int:
        """Whole milliseconds since 1970-01-01T00:00:00Z."""
        return self._micros // 1000

    @property
    def zone(self) -> str:
        """The zone's name, such as `UTC`, `Europe/Paris` or `+02:00`."""
        return self._zone

    year = property(lambda self: self.to_datetime().year, doc="The year in its zone.")
    month = property(lambda self: self.to_datetime().month, doc="The month, from 1.")
    day = property(lambda self: self.to_datetime().day, doc="The day of the month, from 1.")
    hour = property(lambda self: self.to_datetime().hour, doc="The hour in its zone.")
    minute = property(lambda self: self.to_datetime().minute, doc="The minute.")
    second = property(lambda self: self.to_datetime().second, doc="The second.")
    microsecond = property(lambda self: self.to_datetime().microsecond, doc="The microsecond.")
    weekday = property(lambda self: self.to_datetime().isoweekday(), doc="The day of the week: Monday is 1.")

    def to_iso(self) -> str:
        """As ISO 8601 in its zone, with `Z` for UTC and the zone's name in brackets; `parse` reads it back."""
        if self._zone == "UTC":
            return self.to_utc().replace(tzinfo=None).isoformat() + "Z"
        iso = self.to_datetime().isoformat()
        return iso if _OFFSET.fullmatch(self._zone) else f"{iso}[{self._zone}]"

    # -- another one

    def in_zone(self, zone: str) -> DateTime:
        """The same instant seen in `zone`."""
        _tzinfo(zone)
        return self._make(self._micros, zone)

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
        """Years to days by the calendar of its zone, at the same wall time; hours to seconds exactly.

        A day that the month does not have becomes its last: 31 January plus a month is 28 or 29 February.
        """
        exact = Duration.hours(hours) + Duration.minutes(minutes) + Duration.seconds(seconds)
        if not (years or months or weeks or days):
            return self + exact
        wall = self.to_datetime()
        year, month = divmod(wall.year * 12 + wall.month - 1 + years * 12 + months, 12)
        month += 1
        try:
            last = calendar.monthrange(year, month)[1]
            date = dt.date(year, month, min(wall.day, last)) + dt.timedelta(weeks=weeks, days=days)
        except (ValueError, OverflowError) as error:
            raise InvalidTime(self, str(error)) from None
        return self.set(year=date.year, month=date.month, day=date.day, disambiguate=disambiguate) + exact

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
        """The same wall time with these parts replaced; smaller parts stay as they are.

        Raises InvalidTime for a part out of range.
        """
        wall = self.to_datetime()
        given = (year, month, day, hour, minute, second, microsecond)
        present = (wall.year, wall.month, wall.day, wall.hour, wall.minute, wall.second, wall.microsecond)
        parts = [old if new is None else new for new, old in zip(given, present, strict=True)]
        if tuple(parts) == present:
            return self  # of two readings of the same wall time it keeps its own
        return self.from_parts(*parts, zone=self._zone, disambiguate=disambiguate)

    def __add__(self, other: Duration | dt.timedelta) -> DateTime:
        if not isinstance(other, (Duration, dt.timedelta)):
            return NotImplemented
        return self._make(self._micros + Duration.of(other).to_micros(), self._zone)

    __radd__ = __add__

    @overload
    def __sub__(self, other: DateTime) -> Duration: ...
    @overload
    def __sub__(self, other: Duration | dt.timedelta) -> DateTime: ...
    def __sub__(self, other: Any) -> Any:
        if isinstance(other, DateTime):
            return Duration.micros(self._micros - other._micros)
        if isinstance(other, (Duration, dt.timedelta)):
            return self + -Duration.of(other)
        return NotImplemented

    # -- comparing

    def __eq__(self, other: object) -> bool:
        return self._micros == other._micros if isinstance(other, DateTime) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._micros)

    def __lt__(self, other: DateTime) -> bool:
        return self._micros < other._micros if isinstance(other, DateTime) else NotImplemented

    def __le__(self, other: DateTime) -> bool:
        return self._micros <= other._micros if isinstance(other, DateTime) else NotImplemented

    def __gt__(self, other: DateTime) -> bool:
        return self._micros > other._micros if isinstance(other, DateTime) else NotImplemented

    def __ge__(self, other: DateTime) -> bool:
        return self._micros >= other._micros if isinstance(other, DateTime) else NotImplemented

    def __str__(self) -> str:
        return self.to_iso()

    def __repr__(self) -> str:
        return f"DateTime.parse({self.to_iso()!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return DateTime._make, (self._micros, self._zone)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        def read(value: Any) -> DateTime:
            try:
                return cls.parse(value) if isinstance(value, str) else cls.of(value)
            except (InvalidTime, NaiveDateTime) as error:
                raise ValueError(str(error)) from None

        text = core_schema.no_info_after_validator_function(read, core_schema.str_schema())
        return core_schema.json_or_python_schema(
            json_schema=text,
            python_schema=core_schema.no_info_plain_validator_function(read),
            serialization=core_schema.plain_serializer_function_ser_schema(
                cls.to_iso, return_schema=core_schema.str_schema(), when_used="json"
            ),
        )
