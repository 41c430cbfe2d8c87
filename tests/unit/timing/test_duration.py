"""Durations: exact, bounded, and never a bare number."""

from __future__ import annotations

import copy
import datetime as dt
import json
import pickle
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic_core import to_jsonable_python

from confect_celery.errors import InvalidTime
from confect_celery.timing import Duration

spans = st.timedeltas().map(Duration.of)
# Sums and products of these stay within what a duration can be.
small = st.timedeltas(dt.timedelta(days=-100_000), dt.timedelta(days=100_000)).map(Duration.of)
UNITS = {
    Duration.micros: 1,
    Duration.millis: 1_000,
    Duration.seconds: 1_000_000,
    Duration.minutes: 60_000_000,
    Duration.hours: 3_600_000_000,
    Duration.days: 86_400_000_000,
    Duration.weeks: 604_800_000_000,
}


class Job(BaseModel):
    wait: Duration
    waits: dict[Duration, Duration] = {}


@pytest.mark.parametrize(("make", "unit"), UNITS.items())
@given(count=st.integers(-100_000, 100_000) | st.floats(-100_000, 100_000))
def test_a_unit_is_rounded_to_the_nearest_microsecond(
    make: Callable[[float], Duration], unit: int, count: float
) -> None:
    assert make(count).to_micros() == round(Fraction(count) * unit)


def test_halves_of_a_microsecond_are_rounded_to_the_even_one() -> None:
    counts = (-2.5, -1.5, -0.5, 0.5, 1.5, 2.5)
    assert [Duration.micros(count).to_micros() for count in counts] == [-2, -2, 0, 0, 2, 2]


@pytest.mark.parametrize("make", UNITS)
@pytest.mark.parametrize("count", [float("inf"), float("-inf"), float("nan"), 1e300, 10**30, True, "1", None])
def test_what_is_no_finite_number_of_units_is_refused(make: Callable[[Any], Duration], count: Any) -> None:
    with pytest.raises(InvalidTime):
        make(count)


def test_a_number_too_long_to_print_is_refused_too() -> None:
    with pytest.raises(InvalidTime, match="about 1e5010 microseconds"):
        Duration.days(10**5000)


@pytest.mark.parametrize("value", [30, 1.5, True, "30", "PT30S", None, dt.time(1), Duration])
def test_of_takes_no_bare_number(value: Any) -> None:
    with pytest.raises(InvalidTime, match="Duration or a timedelta"):
        Duration.of(value)
    with pytest.raises(TypeError):
        Duration.of(value)


def test_a_number_without_a_unit_makes_no_duration() -> None:
    with pytest.raises(TypeError):
        Duration(30)  # type: ignore[call-arg]
    with pytest.raises(InvalidTime):
        Duration()


@given(st.timedeltas())
def test_a_timedelta_survives(delta: dt.timedelta) -> None:
    duration = Duration.of(delta)
    assert duration.to_timedelta() == delta
    assert duration.total_seconds() == delta.total_seconds()
    assert Duration.of(duration) is duration


@given(spans)
def test_every_text_form_reads_back_exactly(duration: Duration) -> None:
    assert Duration.parse(duration.to_iso()) == duration
    assert eval(repr(duration)) == duration
    assert TypeAdapter(dt.timedelta).validate_python(Duration.parse(duration.to_iso()).to_timedelta()) == (
        duration.to_timedelta()
    )


@given(spans, spans)
def test_order_equality_and_hash_are_those_of_timedeltas(a: Duration, b: Duration) -> None:
    x, y = a.to_timedelta(), b.to_timedelta()
    assert ((a < b), (a <= b), (a > b), (a >= b), (a == b)) == ((x < y), (x <= y), (x > y), (x >= y), (x == y))
    assert bool(a) == bool(x)
    if a == b:
        assert hash(a) == hash(b)


@given(small, small)
def test_sums_are_exact(a: Duration, b: Duration) -> None:
    assert a + b - b == a
    assert a + b.to_timedelta() == b.to_timedelta() + a == a + b
    assert a - b == a.to_timedelta() - b == a - b.to_timedelta() == -(b - a)
    assert abs(a) == max(a, -a)


@given(small, st.integers(-1000, 1000))
def test_products_are_exact(a: Duration, factor: int) -> None:
    assert (a * factor).to_micros() == (factor * a).to_micros() == a.to_micros() * factor
    if factor:
        assert (a * factor) / factor == (a * factor) // factor == a


@given(spans)
def test_a_float_factor_of_one_changes_nothing_however_long(a: Duration) -> None:
    assert a * 1.0 == a / 1.0 == a / 1 == a // 1 == a


def test_quotients() -> None:
    assert Duration.hours(1) / Duration.minutes(30) == 2.0
    assert Duration.hours(1) / dt.timedelta(minutes=8) == 7.5
    assert Duration.hours(1) // Duration.minutes(25) == 2
    assert Duration.seconds(1) / 3 == Duration.micros(333_333)
    assert Duration.seconds(-1) // 3 == Duration.micros(-333_334)
    for zero in (0, 0.0, Duration.zero):
        with pytest.raises(ZeroDivisionError):
            Duration.seconds(1) / zero
        with pytest.raises(ZeroDivisionError):
            Duration.seconds(1) // zero
    for endless in (float("nan"), float("inf")):
        with pytest.raises(InvalidTime):
            Duration.seconds(1) / endless
        with pytest.raises(InvalidTime):
            Duration.seconds(1) * endless


def test_past_the_longest_is_refused() -> None:
    longest, shortest = Duration.of(dt.timedelta.max), Duration.of(dt.timedelta.min)
    assert -shortest == abs(shortest) < longest
    for beyond in (
        lambda: longest + Duration.micros(1),
        lambda: shortest - Duration.micros(1),
        lambda: longest * 2,
        lambda: longest / 0.5,
        lambda: -longest,
        lambda: Duration.parse("P999999999999999999W"),
    ):
        with pytest.raises(InvalidTime, match="999,999,999 days"):
            beyond()


@pytest.mark.parametrize("other", [1, 1.5, True, "1s", None])
def test_bare_numbers_do_not_mix_in(other: Any) -> None:
    second = Duration.seconds(1)
    assert second != other
    for mix in (
        lambda: second + other,
        lambda: other + second,
        lambda: second - other,
        lambda: other - second,
        lambda: second < other,
        lambda: second >= other,
        lambda: other / second,
    ):
        with pytest.raises(TypeError):
            mix()
    for not_a_factor in (True, "2", None, Duration.seconds(2)):
        with pytest.raises(TypeError):
            second * not_a_factor  # type: ignore[operator]


@pytest.mark.parametrize(
    ("duration", "text", "iso"),
    [
        (Duration.zero, "0s", "PT0S"),
        (Duration.hours(26), "1d2h", "P1DT2H"),
        (Duration.seconds(1.5), "1.5s", "PT1.5S"),
        (Duration.micros(1), "0.000001s", "PT0.000001S"),
        (Duration.micros(-1), "-0.000001s", "-PT0.000001S"),
        (Duration.days(1830), "1830d", "P1830D"),
        (Duration.seconds(100), "1m40s", "PT1M40S"),
        (-Duration.minutes(90), "-1h30m", "-PT1H30M"),
        (Duration.seconds(10), "10s", "PT10S"),
        (Duration.days(1) + Duration.millis(10), "1d0.01s", "P1DT0.01S"),
    ],
)
def test_texts_are_short_and_exact(duration: Duration, text: str, iso: str) -> None:
    assert (str(duration), duration.to_iso()) == (text, iso)


def test_the_repr_is_what_one_would_write() -> None:
    assert repr(Duration.seconds(90)) == "Duration.seconds(90)"
    assert repr(Duration.millis(1500)) == "Duration.micros(1500000)"


def test_millis() -> None:
    assert Duration.seconds(2).to_millis() == 2000
    assert Duration.micros(1).to_millis() == 0.001


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("P1W2D", Duration.days(9)),
        ("PT0.5H", Duration.minutes(30)),
        ("+PT1,5S", Duration.millis(1500)),
        ("PT0.0000005S", Duration.zero),
        ("-P1DT1S", -Duration.days(1) - Duration.seconds(1)),
    ],
)
def test_other_spellings_are_read(text: str, expected: Duration) -> None:
    assert Duration.parse(text) == expected


@pytest.mark.parametrize(
    "text",
    ["", "P", "PT", "P1DT", "90", "1d2h", "P1Y", "P1M", "PT1", "PT1S ", "PT1S\n", "PT-1S", "PT١S", "1:30", None, 5],
)
def test_rubbish_is_refused(text: Any) -> None:
    with pytest.raises(InvalidTime, match="ISO 8601"):
        Duration.parse(text)


@given(spans)
def test_json_and_pickle_keep_it_exactly(duration: Duration) -> None:
    job = Job(wait=duration, waits={duration: duration})
    assert Job.model_validate_json(job.model_dump_json()) == job
    assert Job.model_validate(job.model_dump(mode="json")) == job
    assert json.loads(job.model_dump_json())["wait"] == duration.to_iso()
    assert job.model_dump()["wait"] is duration
    assert to_jsonable_python({"nested": [duration]}) == {"nested": [duration.to_iso()]}
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        assert pickle.loads(pickle.dumps(duration, protocol)) == duration
    assert copy.copy(duration) == copy.deepcopy(duration) == duration


def test_pydantic_takes_a_duration_a_timedelta_or_iso_text() -> None:
    for value in (Duration.seconds(90), dt.timedelta(seconds=90), "PT1M30S"):
        assert Job.model_validate({"wait": value}).wait == Duration.seconds(90)
    for bad in (90, 1.5, True, None, "90", "1m30s"):
        with pytest.raises(ValidationError):
            Job.model_validate({"wait": bad})
        with pytest.raises(ValidationError):
            Job.model_validate_json(json.dumps({"wait": bad}))


def test_what_pydantic_says_does_not_repeat_the_value() -> None:
    with pytest.raises(ValidationError) as caught:
        Job.model_validate({"wait": "secret"})
    assert "secret" not in str(caught.value.errors(include_input=False))
    assert caught.value.errors()[0]["type"] == "invalid_time"


@pytest.mark.parametrize("mode", ["validation", "serialization"])
def test_the_json_schema_is_a_duration(mode: Any) -> None:
    schema = Job.model_json_schema(mode=mode)["properties"]["wait"]
    assert (schema["type"], schema["format"]) == ("string", "duration")


@pytest.mark.parametrize("name", ["_micros", "zero", "anything"])
def test_it_never_changes(name: str) -> None:
    duration = Duration.seconds(1)
    with pytest.raises(AttributeError, match="never changes"):
        setattr(duration, name, 5)
    with pytest.raises(AttributeError):
        delattr(duration, name)
    assert not hasattr(duration, "__dict__")
    assert duration == Duration.seconds(1)
