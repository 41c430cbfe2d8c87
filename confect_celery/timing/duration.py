"""A span of time in whole microseconds."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final, TypeVar, overload

from pydantic import TypeAdapter, ValidationError
from pydantic_core import core_schema

from confect_celery.errors import InvalidTime

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler

    from confect_celery.timing.date_time import DateTime

__all__ = ["Duration"]

_MICRO: Final = dt.timedelta(microseconds=1)
_SECOND: Final = 1_000_000
_UNITS: Final = (("w", 604_800 * _SECOND), ("d", 86_400 * _SECOND), ("h", 3600 * _SECOND), ("m", 60 * _SECOND))
_TIMEDELTA: Final = TypeAdapter(dt.timedelta)
_LONGEST: Final = dt.timedelta.max // _MICRO

Self = TypeVar("Self", bound="Duration")


@dataclass(frozen=True, slots=True, order=True, repr=False)
class Duration:
    """A span of time, exact to the microsecond, positive or negative, and never a bare number.

    Fractions below a microsecond are rounded. Every constructor raises InvalidTime for what is no finite number, or
    longer than a timedelta can be.

    >>> Duration.hours(1) + Duration.minutes(30)
    Duration.seconds(5400)
    >>> str(Duration.hours(26) * 2)
    '2d4h'
    >>> Duration.seconds(1) > Duration.millis(999)
    True
    """

    _micros: int
    zero: ClassVar[Duration]

    @classmethod
    def _make(cls, count: float, unit: int) -> Duration:
        if isinstance(count, bool) or not isinstance(count, (int, float)):
            raise InvalidTime(count, "a duration is made of a number")
        try:
            micros = round(count * unit)
        except (OverflowError, ValueError):  # infinite, or not a number
            raise InvalidTime(count, "a duration must be finite") from None
        if abs(micros) > _LONGEST:
            raise InvalidTime(count, "too long for a duration")
        return cls(micros)

    @classmethod
    def micros(cls, count: float) -> Duration:
        """So many microseconds."""
        return cls._make(count, 1)

    @classmethod
    def millis(cls, count: float) -> Duration:
        """So many milliseconds."""
        return cls._make(count, 1000)

    @classmethod
    def seconds(cls, count: float) -> Duration:
        """So many seconds."""
        return cls._make(count, _SECOND)

    @classmethod
    def minutes(cls, count: float) -> Duration:
        """So many minutes."""
        return cls._make(count, 60 * _SECOND)

    @classmethod
    def hours(cls, count: float) -> Duration:
        """So many hours."""
        return cls._make(count, 3600 * _SECOND)

    @classmethod
    def days(cls, count: float) -> Duration:
        """So many times 24 hours; for calendar days see `DateTime.add`."""
        return cls._make(count, 86_400 * _SECOND)

    @classmethod
    def weeks(cls, count: float) -> Duration:
        """So many times 7 days of 24 hours."""
        return cls._make(count, 604_800 * _SECOND)

    @classmethod
    def of(cls, value: dt.timedelta | Duration) -> Duration:
        """A Duration or a timedelta as a Duration; anything else, a bare number above all, raises InvalidTime."""
        if isinstance(value, Duration):
            return value
        if isinstance(value, dt.timedelta):
            return cls(value // _MICRO)
        raise InvalidTime(value, "a duration is a Duration or a timedelta, such as Duration.seconds(30)")

    @classmethod
    def parse(cls, text: str) -> Duration:
        """Read an ISO 8601 duration such as `PT1H30M`; raises InvalidTime."""
        try:
            return cls.of(_TIMEDELTA.validate_strings(text))
        except ValidationError:
            raise InvalidTime(text, "not an ISO 8601 duration such as PT1H30M") from None

    def to_timedelta(self) -> dt.timedelta:
        """The same span as a timedelta."""
        return dt.timedelta(microseconds=self._micros)

    def to_micros(self) -> int:
        """The whole of it in microseconds."""
        return self._micros

    def to_millis(self) -> float:
        """The whole of it in milliseconds."""
        return self._micros / 1000

    def total_seconds(self) -> float:
        """The whole of it in seconds."""
        return self._micros / _SECOND

    def to_iso(self) -> str:
        """As an ISO 8601 duration in seconds, exactly."""
        whole, micros = divmod(abs(self._micros), _SECOND)
        fraction = f".{micros:06d}".rstrip("0") if micros else ""
        return f"{'-' if self._micros < 0 else ''}PT{whole}{fraction}S"

    @overload
    def __add__(self, other: Duration | dt.timedelta) -> Duration: ...
    @overload
    def __add__(self, other: DateTime) -> DateTime: ...
    def __add__(self, other: Any) -> Any:
        if isinstance(other, (Duration, dt.timedelta)):
            return Duration._make(self._micros + Duration.of(other)._micros, 1)
        return NotImplemented  # a DateTime knows how to add a Duration

    def __radd__(self, other: dt.timedelta) -> Duration:
        return self + other

    def __sub__(self, other: Duration | dt.timedelta) -> Duration:
        return self + -Duration.of(other)

    def __mul__(self, factor: float) -> Duration:
        return Duration._make(factor, self._micros)

    __rmul__ = __mul__

    @overload
    def __truediv__(self, other: Duration | dt.timedelta) -> float: ...
    @overload
    def __truediv__(self, other: float) -> Duration: ...
    def __truediv__(self, other: Any) -> Any:
        if isinstance(other, (Duration, dt.timedelta)):
            return self._micros / Duration.of(other)._micros
        return Duration._make(self._micros / other, 1)

    def __floordiv__(self, other: Duration | dt.timedelta) -> int:
        return self._micros // Duration.of(other)._micros

    def __neg__(self) -> Duration:
        return Duration(-self._micros)

    def __abs__(self) -> Duration:
        return Duration(abs(self._micros))

    def __bool__(self) -> bool:
        return self._micros != 0

    def __str__(self) -> str:
        left, parts = abs(self._micros), ""
        for unit, size in _UNITS[1:]:
            count, left = divmod(left, size)
            parts += f"{count}{unit}" if count else ""
        if left or not parts:
            parts += f"{left / _SECOND:.6f}".rstrip("0").rstrip(".") + "s"
        return ("-" if self._micros < 0 else "") + parts

    def __repr__(self) -> str:
        whole, rest = divmod(self._micros, _SECOND)
        return f"Duration.micros({self._micros})" if rest else f"Duration.seconds({whole})"

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        def read(value: Any) -> Duration:
            try:
                return cls.parse(value) if isinstance(value, str) else cls.of(value)
            except InvalidTime as error:
                raise ValueError(str(error)) from None

        text = core_schema.no_info_after_validator_function(
            read, core_schema.str_schema(metadata={"pydantic_js_extra": {"format": "duration"}})
        )
        return core_schema.json_or_python_schema(
            json_schema=text,
            python_schema=core_schema.no_info_plain_validator_function(read),
            serialization=core_schema.plain_serializer_function_ser_schema(
                cls.to_iso, return_schema=core_schema.str_schema(), when_used="json"
            ),
        )


Duration.zero = Duration(0)
