"""An exception as JSON: always, bounded, and what it tells of which error."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, SecretStr, ValidationError

from confect_celery.errors import DelayOutOfRange, InvalidArguments, UnknownFunction
from confect_celery.functions.failure import describe


def described(error: BaseException, *declared: type[Exception]) -> dict[str, Any]:
    """Raise it, describe it, and see that a database takes it."""
    try:
        raise error
    except BaseException as raised:
        made = describe(raised, declared)
    text = json.dumps(made, allow_nan=False, ensure_ascii=False)
    assert "\\u0000" not in text.replace("\\\\", "")
    assert len(text.encode()) < 4 * 40_000
    assert set(made) <= {"tag", "message", "data", "traceback"}
    assert {"tag", "message"} <= set(made)
    return made


class Broken(Exception):
    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error

    def __str__(self) -> str:
        raise self.error or RuntimeError("no")

    def __repr__(self) -> str:
        raise RuntimeError("no")


class Holder(Exception):
    def __init__(self, **fields: Any) -> None:
        super().__init__("held")
        vars(self).update(fields)


def test_an_unexpected_error_keeps_its_traceback() -> None:
    made = described(ValueError("bad"))
    assert made["tag"] == "ValueError"
    assert made["message"] == "bad"
    assert made["traceback"].startswith("Traceback (most recent call last)")
    assert made["traceback"].rstrip().endswith("ValueError: bad")
    assert "data" not in made


def test_a_declared_error_keeps_its_fields() -> None:
    @dataclass(eq=False)
    class MaxRetriesReached(Exception):
        attempts: int
        last: list[str] = field(default_factory=list)
        _hidden: int = 0

        def __str__(self) -> str:
            return f"gave up after {self.attempts}"

    class Special(MaxRetriesReached): ...

    fields = {"attempts": 3, "last": ["a"]}
    for cls in (MaxRetriesReached, Special):
        made = described(cls(3, ["a"]), MaxRetriesReached)
        assert made == {"tag": cls.__name__, "message": "gave up after 3", "data": fields}
    assert "traceback" in described(MaxRetriesReached(3))


def test_a_dataclass_with_slots_keeps_its_fields() -> None:
    @dataclass(slots=True, eq=False)
    class Slotted(Exception):
        attempts: int

    assert described(Slotted(3), Slotted)["data"] == {"attempts": 3}


def test_a_declared_error_without_fields_has_no_data() -> None:
    assert described(ValueError("x"), ValueError) == {"tag": "ValueError", "message": "x"}


def test_fields_of_pydantics_own_kinds() -> None:
    class Inner(BaseModel):
        number: int
        password: SecretStr

    made = described(Holder(inner=Inner(number=3, password=SecretStr("secret"))), Holder)
    assert made["data"] == {"inner": {"number": 3, "password": "**********"}}
    with pytest.raises(ValidationError) as raised:
        Inner(number="x", password="y")  # type: ignore[arg-type]
    assert described(raised.value, ValidationError)["tag"] == "ValidationError"


def test_our_own_errors_keep_their_fields_undeclared() -> None:
    assert described(UnknownFunction("a", ["b"])) == {
        "tag": "UnknownFunction",
        "message": str(UnknownFunction("a", ["b"])),
        "data": {"name": "a", "close": ["b"]},
    }
    assert described(DelayOutOfRange("0s", "1s", "2s"))["data"] == {"asked": "0s", "minimum": "1s", "maximum": "2s"}
    detail = {"type": "missing", "loc": ["x"], "msg": "Field required"}
    assert described(InvalidArguments("f", [detail]))["data"] == {"function": "f", "details": [detail]}


def test_methods_that_raise() -> None:
    assert described(Broken())["message"] == "(its message could not be made: RuntimeError)"
    assert described(Broken(RecursionError()))["tag"] == "Broken"
    assert described(Broken(), Broken)["data"] == {"error": None}

    class NoText(Exception):
        def __str__(self) -> str:
            return 3  # type: ignore[return-value]

    assert "TypeError" in described(NoText())["message"]

    class NoAttributes(Exception):
        def __getattribute__(self, name: str) -> Any:
            raise RuntimeError(name)

    assert described(NoAttributes("x"), NoAttributes)["data"]["omitted"]
    assert "(its traceback could not be made" in describe(NoAttributes("x"))["traceback"]


def test_fields_that_are_not_json_do_not_take_the_others_along() -> None:
    circle: list[Any] = []
    circle.append(circle)

    class Odd:
        def __repr__(self) -> str:
            raise RuntimeError

    fields = {"good": 1, "odd": Odd(), "deep": [Odd()], "circle": circle, "raw": b"\xff", "keys": {(1, 2): 3}}
    data = described(Holder(**fields), Holder)["data"]
    assert data["good"] == 1
    assert data["odd"] == "(not JSON: Odd)"
    assert data["deep"] == ["(not JSON: Odd)"]
    assert data["circle"] == "(not JSON: ValueError)"
    assert data["raw"] == "(not JSON: UnicodeDecodeError)"
    assert set(data) == set(fields)


def test_numbers_and_texts_that_a_database_refuses() -> None:
    fields = {"nan": math.nan, "inf": [-math.inf], "nul": "a\x00b", "half": "a\ud800", "\x00key": 1, "like": "\\u0000"}
    made = described(Holder(**fields), Holder)["data"]
    expected = {"nan": "nan", "inf": ["-inf"], "nul": "ab", "half": "a?", "key": 1, "like": "\\u0000"}
    assert made == expected
    made = described(ValueError("a\x00b\ud800c"))
    assert made["message"] == "ab?c"
    assert "ab?c" in made["traceback"]


def test_data_is_bounded() -> None:
    for value in ("x" * 20_000, list(range(10_000)), "ü" * 10_000):
        assert "more than 16384 bytes" in described(Holder(value=value), Holder)["data"]["omitted"]
    assert described(Holder(value=10**5000), Holder)["data"]["omitted"]
    deep: Any = None
    for _ in range(5_000):
        deep = [deep]
    assert described(Holder(deep=deep), Holder)["data"]


def test_message_and_traceback_are_cut_in_the_middle() -> None:
    def deep(level: int) -> None:
        if level:
            return deep(level - 1) if level % 2 else other(level - 1)
        raise ValueError("the end" + "m" * 100_000 + "of the message")

    def other(level: int) -> None:
        return deep(level)

    with pytest.raises(ValueError, match="the end") as raised:
        deep(300)
    made = describe(raised.value)
    assert len(made["message"]) <= 4_000
    assert made["message"].startswith("the endm")
    assert made["message"].endswith("of the message")
    assert len(made["traceback"]) <= 16_000
    assert made["traceback"].startswith("Traceback (most recent call last)")
    assert "… cut …" in made["traceback"]
    assert made["traceback"].rstrip().endswith("of the message")


def test_a_runaway_recursion() -> None:
    def runaway() -> None:
        runaway()

    with pytest.raises(RecursionError) as raised:
        runaway()
    made = describe(raised.value)
    assert made["tag"] == "RecursionError"
    assert "runaway" in made["traceback"]


def test_chains_and_groups() -> None:
    try:
        try:
            raise KeyError("cause")
        except KeyError as cause:
            raise ValueError("effect") from cause
    except ValueError as error:
        text = describe(error)["traceback"]
        assert text.index("KeyError: 'cause'") < text.index("direct cause") < text.index("ValueError: effect")
    long: BaseException = ValueError("first")
    for number in range(2_000):
        following = ValueError(str(number))
        following.__cause__ = long
        long = following
    assert described(long)["traceback"]
    made = described(ExceptionGroup("several", [ValueError("one"), ExceptionGroup("inner", [Broken()])]))
    assert made["tag"] == "ExceptionGroup"
    assert "ValueError: one" in made["traceback"]
    noted = ValueError("x")
    noted.add_note("a note")
    assert "a note" in described(noted)["traceback"]
    assert described(noted, ValueError) == {"tag": "ValueError", "message": "x"}


@pytest.mark.parametrize("error", [KeyboardInterrupt("stop"), SystemExit(3), GeneratorExit()])
def test_errors_that_are_no_exceptions(error: BaseException) -> None:
    assert described(error, ValueError)["tag"] == type(error).__name__


def test_a_class_with_a_long_name() -> None:
    assert len(described(type("E" * 1_000, (Exception,), {})())["tag"]) <= 200


@given(st.text(), st.dictionaries(st.text(), st.text() | st.floats() | st.binary() | st.builds(object)))
def test_it_never_raises(message: str, fields: dict[str, Any]) -> None:
    error = Holder(**fields)
    error.args = (message,)
    described(error, Holder)
    described(error)
