"""The text that goes to the database tells what a close look at the arguments would, and refuses just the same."""

from __future__ import annotations

import datetime as dt
import enum
import json
from decimal import Decimal
from typing import Any
from unittest.mock import patch
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    RootModel,
    SecretStr,
    field_serializer,
    model_serializer,
    model_validator,
)
from typing_extensions import TypedDict

from confect_celery.errors import ArgumentsTooLarge, InvalidArguments
from confect_celery.functions import FunctionRef, Group, Registry, codec
from confect_celery.functions.codec import MAX_ARGS_BYTES, decode, encode, encode_as_text

group = Group(Registry(), "text")


class Colour(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    ONE = 1


class Inner(BaseModel):
    at: dt.datetime | None = None
    price: Decimal | None = None
    _seen: int = PrivateAttr(0)


class Odd(BaseModel):
    model_config = ConfigDict(extra="allow")

    value: Any = None
    number: float = 0.0
    alias: int = Field(0, validation_alias="aliased", serialization_alias="ALIASED")
    inner: Inner = Inner()
    colour: Colour = Colour.RED
    raw: bytes = b""
    secret: SecretStr | None = None
    hidden: int = Field(0, exclude=True)
    mapped: dict[int | str, Any] = {}


class Flat(BaseModel):
    """Of scalars alone."""

    model_config = ConfigDict(extra="allow")

    n: int = 0
    x: float = 0.0
    text: str = ""
    is_so: bool = False
    perhaps: int | None = None
    either: int | str = 0
    value: Any = None


class Plain(BaseModel):
    """Of scalars that JSON surely brings back."""

    n: int = 0
    text: str = ""
    is_so: bool = False
    perhaps: int | None = None


class Constants(BaseModel):
    model_config = ConfigDict(ser_json_inf_nan="constants")

    number: float = 0.0


class Typed(TypedDict, total=False):
    value: Any
    at: dt.datetime


class Listed(RootModel[list[Any]]): ...


class Written(BaseModel):
    """A field that JSON does not bring back, though nobody hides it."""

    number: int

    @field_serializer("number")
    def write(self, number: int) -> int:
        return number + 1


class Pair(BaseModel):
    """It is an array in JSON, and comes back from one."""

    left: int

    @model_validator(mode="before")
    @classmethod
    def read(cls, value: Any) -> Any:
        return {"left": value[0]} if isinstance(value, list) else value

    @model_serializer
    def write(self) -> list[int]:
        return [self.left]


@group.internal_action
def pair(args: Pair) -> None: ...
@group.internal_action
def odd(args: Odd) -> None: ...
@group.internal_action
def flat(args: Flat) -> None: ...
@group.internal_action
def plain(args: Plain) -> None: ...
@group.internal_action
def constants(args: Constants) -> None: ...
@group.internal_action
def typed(args: Typed) -> None: ...
@group.internal_action
def listed(args: Listed) -> None: ...
@group.internal_action
def written(args: Written) -> None: ...
@group.internal_action
def nothing() -> None: ...


SOME: list[tuple[Any, Any]] = [
    (odd, Odd(value=[1, 2.5, None, True, {"": {"a": "b"}}])),
    (odd, {"value": {1: "a", "1": "b"}}),
    (odd, {"mapped": {1: "a", "1": "b"}}),
    (odd, {"value": (1, 2), "more": {"x": 1.0}}),
    (odd, {"value": {3}}),
    (odd, {"value": object()}),
    (odd, {"value": "\x00"}),
    (odd, {"value": "\\u0000"}),
    (odd, {"value": 'NaN and Infinity \x7f \x1f \\ " / \u2028 Zoë 🦉'}),
    (odd, {"value": "\ud800"}),
    (odd, {"NaN": 1}),
    (odd, {"value": float("nan")}),
    (odd, {"number": float("inf")}),
    (odd, {"number": -0.0, "value": 1e16}),
    (odd, {"value": [1e22, 1.5e300, 5e-324, 1e-5, 123456789012345678901234567890]}),
    (odd, {"aliased": 3}),
    (odd, {"alias": 3}),
    (odd, {"hidden": 3}),
    (odd, {"secret": "x"}),
    (odd, {"raw": b"abc"}),
    (odd, {"raw": b"\xff"}),
    (odd, {"inner": {"at": "2030-01-01T00:00:00+01:00", "price": "1.10"}}),
    (odd, {"value": Inner(at=dt.datetime(2030, 1, 1, tzinfo=dt.UTC), price=Decimal("1.10"))}),
    (odd, {"value": [Decimal("1.0"), UUID(int=7), dt.timedelta(1), Colour.RED]}),
    (odd, Odd.model_construct(number="no number")),
    (odd, Odd.model_construct(alias=5.0)),
    (odd, Inner()),
    (odd, {"value": "x" * MAX_ARGS_BYTES}),
    (odd, {"value": [1] * (MAX_ARGS_BYTES // 3)}),
    (odd, {"value": [1] * (MAX_ARGS_BYTES // 3 - 100)}),
    (plain, Plain(n=10**4000, text='\x01 \x7f \x1f \\ " / \u2028 Zoë 🦉')),
    (plain, Plain.model_construct(n=1 << 14_300)),
    (plain, Plain(text="\x00")),
    (plain, Plain(text="\\u0000")),
    (plain, Plain.model_construct(text="\ud800")),
    (plain, Plain(text="x" * MAX_ARGS_BYTES)),
    (plain, Plain.model_construct(text=Level.ONE, more=1)),
    (plain, type("Wider", (Plain,), {})(n=1)),
    (constants, {"number": float("inf")}),
    (constants, {"number": 1}),
    (typed, {"value": 1, "at": "2030-01-01T00:00:00Z"}),
    (typed, {"value": {1: 2}}),
    (typed, {"value": SecretStr("x")}),
    (typed, {"value": Odd(secret=SecretStr("x"))}),
    (listed, Listed([1])),
    (written, Written(number=1)),
    (written, {"number": "1"}),
    (pair, Pair(left=1)),
    (nothing, None),
    (nothing, {}),
    (nothing, {"a": 1}),
]


def outcome(ref: FunctionRef[Any, Any], args: Any) -> Any:
    try:
        return json.loads(encode_as_text(ref, args))
    except (InvalidArguments, ArgumentsTooLarge) as error:
        return type(error), str(error), getattr(error, "details", None)


def looked_at_closely(ref: FunctionRef[Any, Any], args: Any) -> Any:
    with patch.object(codec, "_text_at_once", lambda *_: None):
        return outcome(ref, args)


@pytest.mark.parametrize(("ref", "args"), SOME, ids=range(len(SOME)))
def test_a_quick_look_finds_what_a_close_one_does(ref: FunctionRef[Any, Any], args: Any) -> None:
    assert repr(outcome(ref, args)) == repr(looked_at_closely(ref, args))


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.decimals() | st.binary() | st.datetimes(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers() | st.floats(), inner),
    max_leaves=10,
)


@settings(deadline=None)  # how long ten looks take says nothing on a busy machine
@given(value=ANYTHING, number=st.floats() | st.integers() | st.text(), raw=st.binary())
def test_whatever_it_is(value: Any, number: Any, raw: Any) -> None:
    calls: list[tuple[FunctionRef[Any, Any], Any]] = [
        (odd, {"value": value}),
        (odd, {"number": number, "raw": raw, "more": value}),
        (odd, Odd.model_construct(number=number, raw=raw)),
        (constants, {"number": number}),
        (typed, {"value": value}),
    ]
    for ref, args in calls:
        assert repr(outcome(ref, args)) == repr(looked_at_closely(ref, args))


SCALAR = st.none() | st.booleans() | st.integers(-2, 2) | st.sampled_from([0.0, 1.0, 1.5, "", "1", "true", Level.ONE])


@settings(deadline=None)
@given(n=st.integers() | SCALAR, text=st.text(st.characters()) | SCALAR, is_so=SCALAR, perhaps=st.integers() | SCALAR)
def test_whatever_stands_in_plain_fields(**fields: Any) -> None:
    for args in (fields, Plain.model_construct(**fields), Plain.model_construct(**dict(reversed(fields.items())))):
        assert repr(outcome(plain, args)) == repr(looked_at_closely(plain, args))


@settings(deadline=None)
@given(fields=st.fixed_dictionaries({}, optional=dict.fromkeys([*Flat.model_fields, "more"], SCALAR)))
def test_whatever_stands_in_fields_of_other_types(fields: dict[str, Any]) -> None:
    for args in (fields, Flat.model_construct(**fields)):
        assert repr(outcome(flat, args)) == repr(looked_at_closely(flat, args))


@pytest.mark.parametrize("value", [1, "plain", "Zoë \x7f", [1.5, {"a": None}]])
def test_the_text_is_ascii_and_can_be_read_again(value: Any) -> None:
    text = encode_as_text(odd, {"value": value})
    assert text.isascii() and text.decode().isprintable()
    assert json.loads(text) == encode(odd, {"value": value})
    assert decode(odd, json.loads(text)) == Odd(value=value)


def test_most_arguments_are_looked_at_once() -> None:
    with patch.object(codec, "_checked", side_effect=AssertionError("looked at closely")):
        assert encode(odd, Odd(value=1)) == encode(odd, {"value": 1})
        assert encode(typed, {"value": "é"}) == {"value": "é"}
        assert encode(plain, Plain(n=1, text="é")) == encode(plain, {"n": "1", "text": "é"})
        assert encode(flat, Flat(n=1, x=2, text="é")) == encode(flat, {"n": "1", "x": 2.0, "text": "é"})
