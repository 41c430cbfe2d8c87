"""A span of time in whole microseconds."""

from __future__ import annotations

import datetime as dt
import math
import re
from abc import ABC, abstractmethod
from fractions import Fraction
from typing import TYPE_CHECKING, Any, ClassVar, Final, NoReturn, Self, TypeGuard, final, overload

from pydantic_core import PydanticCustomError, SchemaSerializer, core_schema

from confect_celery.errors import InvalidTime, TimeError

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
    from pydantic.json_schema import JsonSchemaValue

    from confect_celery.timing.date_time import DateTime

__all__ = ["Duration"]

_MICRO: Final = dt.timedelta(microseconds=1)
_MILLI: Final = 1_000
_SECOND: Final = 1_000_000
_MINUTE: Final = 60 * _SECOND
_HOUR: Final = 60 * _MINUTE
_DAY: Final = 24 * _HOUR
_WEEK: Final = 7 * _DAY
_SHORTEST: Final = dt.timedelta.min // _MICRO
_LONGEST: Final = dt.timedelta.max // _MICRO

# The digits are bounded so that no text, however long, is dear to read.
_NUMBER: Final = r"(\d{1,18}(?:[.,]\d{1,18})?)"
_ISO: Final = re.compile(
    rf"([+-]?)P(?=.)(?:{_NUMBER}W)?(?:{_NUMBER}D)?(?:T(?=.)(?:{_NUMBER}H)?(?:{_NUMBER}M)?(?:{_NUMBER}S)?)?", re.ASCII
)


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


class Micros(ABC):
    """What Duration and DateTime share: frozen, ordered and hashed by their microseconds, read and written by pydantic.

    No dataclass, because pydantic writes a dataclass whose type it was not told as a dict of its fields.
    """

    __slots__ = ("_micros",)
    _micros: int
    __pydantic_serializer__: ClassVar[SchemaSerializer]

    def __init_subclass__(cls) -> None:
        # Where pydantic looks when it was not told the type: inside a plain dict that goes to a JSON column.
        cls.__pydantic_serializer__ = SchemaSerializer(core_schema.any_schema(serialization=cls._write()))

    if not TYPE_CHECKING:  # a checker that saw these would let any attribute be set

        def __setattr__(self, name: str, value: object) -> NoReturn:
            raise AttributeError(f"a {type(self).__name__} never changes: make another one")

        def __delattr__(self, name: str) -> NoReturn:
            raise AttributeError(f"a {type(self).__name__} never changes: make another one")

    def __eq__(self, other: object) -> bool:
        return self._micros == other._micros if isinstance(other, type(self)) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._micros)

    def __lt__(self, other: Self) -> bool:
        return self._micros < other._micros if isinstance(other, type(self)) else NotImplemented

    def __le__(self, other: Self) -> bool:
        return self._micros <= other._micros if isinstance(other, type(self)) else NotImplemented

    def __gt__(self, other: Self) -> bool:
        return self._micros > other._micros if isinstance(other, type(self)) else NotImplemented

    def __ge__(self, other: Self) -> bool:
        return self._micros >= other._micros if isinstance(other, type(self)) else NotImplemented

    @classmethod
    @abstractmethod
    def of(cls, value: Any) -> Self: ...

    @classmethod
    @abstractmethod
    def parse(cls, text: str) -> Self: ...

    @abstractmethod
    def to_iso(self) -> str: ...

    @classmethod
    def _read(cls, value: Any) -> Self:
        try:
            return cls.parse(value) if isinstance(value, str) else cls.of(value)
        except TimeError as error:
            # Without the value: arguments may be private, and what pydantic says of them is stored and logged.
            reason = error.reason if isinstance(error, InvalidTime) else "it has no time zone; end it in Z or an offset"
            raise PydanticCustomError("invalid_time", "{reason}", {"reason": reason}) from None

    @classmethod
    def _write(cls) -> core_schema.PlainSerializerFunctionSerSchema:
        return core_schema.plain_serializer_function_ser_schema(
            cls.to_iso, return_schema=core_schema.str_schema(), when_used="json"
        )

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        return core_schema.json_or_python_schema(
            json_schema=core_schema.no_info_after_validator_function(cls._read, core_schema.str_schema()),
            python_schema=core_schema.no_info_plain_validator_function(cls._read),
            serialization=cls._write(),
        )


_new: Final = object.__new__
_set_micros: Final[Any] = vars(Micros)["_micros"].__set__
"""Past `__setattr__`, which refuses."""


@final
class Duration(Micros):
    """A span of time, exact to the microsecond, positive or negative; made from a number and its unit, or a timedelta.

    Fractions of a microsecond are rounded to the nearest. Whatever is not finite, or longer than a timedelta can be
    (999,999,999 days), raises InvalidTime.

    >>> Duration.hours(1) + Duration.minutes(30)
    Duration.seconds(5400)
    >>> str(Duration.hours(26))
    '1d2h'
    >>> Duration.seconds(1) > Duration.millis(999)
    True
    """

    __slots__ = ()
    zero: ClassVar[Duration]
    """No time at all."""

    def __init__(self) -> None:
        raise InvalidTime("Duration()", "say the unit, as in Duration.seconds(30)")

    @classmethod
    def _whole(cls, micros: int) -> Duration:
        if not _SHORTEST <= micros <= _LONGEST:
            # Only its magnitude, because Python refuses to print an integer of more than 4,300 digits.
            about = f"about 1e{math.floor(math.log10(abs(micros)))} microseconds"
            raise InvalidTime(about, "longer than 999,999,999 days, the longest duration")
        made: Duration = _new(cls)
        _set_micros(made, micros)
        return made

    @classmethod
    def _make(cls, count: float, unit: int) -> Duration:
        if not _is_number(count):
            raise InvalidTime(count, "a duration is made of a number")
        try:
            # A product of floats would be off by microseconds past 285 years.
            micros = count * unit if isinstance(count, int) else _rounded(count, unit)
        except (OverflowError, ValueError):
            raise InvalidTime(count, "a duration is finite") from None
        return cls._whole(micros)

    @classmethod
    def micros(cls, count: float) -> Duration:
        """So many microseconds."""
        return cls._make(count, 1)

    @classmethod
    def millis(cls, count: float) -> Duration:
        """So many milliseconds."""
        return cls._make(count, _MILLI)

    @classmethod
    def seconds(cls, count: float) -> Duration:
        """So many seconds."""
        return cls._make(count, _SECOND)

    @classmethod
    def minutes(cls, count: float) -> Duration:
        """So many minutes."""
        return cls._make(count, _MINUTE)

    @classmethod
    def hours(cls, count: float) -> Duration:
        """So many hours."""
        return cls._make(count, _HOUR)

    @classmethod
    def days(cls, count: float) -> Duration:
        """So many times 24 hours; `DateTime.add(days=…)` counts calendar days."""
        return cls._make(count, _DAY)

    @classmethod
    def weeks(cls, count: float) -> Duration:
        """So many times 7 days of 24 hours."""
        return cls._make(count, _WEEK)

    @classmethod
    def of(cls, value: dt.timedelta | Duration) -> Duration:
        """A timedelta as a Duration, or a Duration as it is; anything else, even a bare number, raises InvalidTime."""
        if isinstance(value, Duration):
            return value
        if isinstance(value, dt.timedelta):
            return cls._whole(value // _MICRO)
        raise InvalidTime(value, "a duration is a Duration or a timedelta, as in Duration.seconds(30)")

    @classmethod
    def parse(cls, text: str) -> Duration:
        """Read an ISO 8601 duration of weeks to seconds, such as `P1DT2H` or `-PT0.5S`; raises InvalidTime."""
        found = _ISO.fullmatch(text) if isinstance(text, str) else None
        if found is None:
            raise InvalidTime(text, "not an ISO 8601 duration of weeks to seconds, such as P1DT2H or PT0.5S")
        counts = zip(found.groups()[1:], (_WEEK, _DAY, _HOUR, _MINUTE, _SECOND), strict=True)
        micros = round(sum(Fraction(count.replace(",", ".")) * unit for count, unit in counts if count))
        return cls._whole(-micros if found[1] == "-" else micros)

    def to_timedelta(self) -> dt.timedelta:
        """The same span as a timedelta, exactly."""
        return dt.timedelta(microseconds=self._micros)

    def to_micros(self) -> int:
        """All of it in microseconds, exactly."""
        return self._micros

    def to_millis(self) -> float:
        """All of it in milliseconds."""
        return self._micros / _MILLI

    def total_seconds(self) -> float:
        """All of it in seconds."""
        return self._micros / _SECOND

    def to_iso(self) -> str:
        """As ISO 8601 in days to seconds, such as `P1DT2H`, exactly; `parse` reads it back."""
        days, times = self._spelt()
        return f"{self._sign()}P{days}{'T' if times or not days else ''}{times or ('' if days else '0s')}".upper()

    def _sign(self) -> str:
        return "-" if self._micros < 0 else ""

    def _spelt(self) -> tuple[str, str]:
        days, left = divmod(abs(self._micros), _DAY)
        hours, left = divmod(left, _HOUR)
        minutes, left = divmod(left, _MINUTE)
        seconds = f"{left // _SECOND}.{left % _SECOND:06d}".rstrip("0").rstrip(".")
        times = ((str(hours), "h"), (str(minutes), "m"), (seconds, "s"))
        return f"{days}d" if days else "", "".join(count + unit for count, unit in times if count != "0")

    @overload
    def __add__(self, other: Duration | dt.timedelta) -> Duration: ...
    @overload
    def __add__(self, other: DateTime) -> DateTime: ...
    def __add__(self, other: Any) -> Any:
        if not isinstance(other, (Duration, dt.timedelta)):
            return NotImplemented  # a DateTime adds a Duration itself
        return Duration._whole(self._micros + Duration.of(other)._micros)

    def __radd__(self, other: dt.timedelta) -> Duration:
        return self.__add__(other)

    def __sub__(self, other: Duration | dt.timedelta) -> Duration:
        if not isinstance(other, (Duration, dt.timedelta)):
            return NotImplemented
        return Duration._whole(self._micros - Duration.of(other)._micros)

    def __rsub__(self, other: dt.timedelta) -> Duration:
        return Duration.of(other) - self if isinstance(other, dt.timedelta) else NotImplemented

    def __mul__(self, factor: float) -> Duration:
        return Duration._make(factor, self._micros) if _is_number(factor) else NotImplemented

    __rmul__ = __mul__

    @overload
    def __truediv__(self, other: Duration | dt.timedelta) -> float: ...
    @overload
    def __truediv__(self, other: float) -> Duration: ...
    def __truediv__(self, other: Any) -> Any:
        if isinstance(other, (Duration, dt.timedelta)):
            return self._micros / Duration.of(other)._micros
        return Duration._whole(round(self._micros / _divisor(other))) if _is_number(other) else NotImplemented

    @overload
    def __floordiv__(self, other: Duration | dt.timedelta) -> int: ...
    @overload
    def __floordiv__(self, other: float) -> Duration: ...
    def __floordiv__(self, other: Any) -> Any:
        if isinstance(other, (Duration, dt.timedelta)):
            return self._micros // Duration.of(other)._micros
        return Duration._whole(self._micros // _divisor(other)) if _is_number(other) else NotImplemented

    def __neg__(self) -> Duration:
        return Duration._whole(-self._micros)

    def __abs__(self) -> Duration:
        return Duration._whole(abs(self._micros))

    def __bool__(self) -> bool:
        return self._micros != 0

    def __str__(self) -> str:
        return self._sign() + ("".join(self._spelt()) or "0s")

    def __repr__(self) -> str:
        seconds, rest = divmod(self._micros, _SECOND)
        return f"Duration.micros({self._micros})" if rest else f"Duration.seconds({seconds})"

    def __reduce__(self) -> tuple[Any, ...]:
        return Duration.micros, (self._micros,)

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return {"type": "string", "format": "duration", "examples": ["P1DT2H"]}


def _rounded(count: float, unit: int) -> int:
    """`round(Fraction(count) * unit)`, many times as fast: to the nearest, halves to the even one."""
    over, under = count.as_integer_ratio()
    whole, rest = divmod(over * unit, under)
    return whole + (2 * rest > under or (2 * rest == under and whole % 2 == 1))


def _divisor(number: float) -> Fraction:
    try:
        return Fraction(number)
    except (OverflowError, ValueError):
        raise InvalidTime(number, "a duration is divided by a finite number") from None


Duration.zero = Duration.micros(0)
