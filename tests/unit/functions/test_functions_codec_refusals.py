"""What is not taken as arguments, and that nobody reads the values in the error."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field, RootModel, SecretBytes, SecretStr, field_serializer

from confect_celery.errors import ArgumentsTooLarge, InvalidArguments
from confect_celery.functions import FunctionRef, Group, Registry
from confect_celery.functions.codec import MAX_ARGS_BYTES, check_json, encode
from confect_celery.timing import DateTime, Duration

SECRET = "s3cr3t"
group = Group(Registry(), "codec")


class Free(BaseModel):
    value: Any = None


class Number(BaseModel):
    number: int


class Real(BaseModel):
    number: float


class Extras(BaseModel, extra="allow"): ...


class Cat(BaseModel):
    kind: Literal["cat"]


class Dog(BaseModel):
    kind: Literal["dog"]


class Typed(BaseModel):
    number: int = 0
    limited: Annotated[str, Field(max_length=3)] = ""
    choice: Literal["a"] = "a"
    pet: Annotated[Cat | Dog, Field(discriminator="kind")] | None = None
    when: DateTime | None = None
    span: Duration | None = None
    nested: list[Number] = []


@group.internal_mutation
def free(args: Free) -> None: ...
@group.internal_mutation
def typed(args: Typed) -> None: ...
@group.internal_mutation
def real(args: Real) -> None: ...
@group.internal_mutation
def extras(args: Extras) -> None: ...
@group.internal_mutation
def no_args() -> None: ...


def refused(ref: FunctionRef[Any, Any], args: object) -> list[dict[str, Any]]:
    with pytest.raises(InvalidArguments) as raised:
        encode(ref, args)
    assert raised.value.function == ref.name
    assert SECRET not in str(raised.value)
    assert SECRET not in repr(raised.value.details)
    assert all(set(detail) == {"type", "loc", "msg"} for detail in raised.value.details)
    return raised.value.details


@pytest.mark.parametrize(
    ("args", "loc"),
    [
        ({"number": SECRET}, ["number"]),
        ({"limited": SECRET}, ["limited"]),
        ({"choice": SECRET}, ["choice"]),
        ({"pet": {"kind": SECRET}}, ["pet"]),
        ({"pet": SECRET}, ["pet"]),
        ({"when": SECRET}, ["when"]),
        ({"span": SECRET}, ["span"]),
        ({"nested": [{"number": 1}, {"number": SECRET}]}, ["nested", 1, "number"]),
    ],
)
def test_details_say_where_but_never_what(args: dict[str, Any], loc: list[str | int]) -> None:
    assert refused(typed, args)[0]["loc"] == loc


def test_other_types_than_the_model() -> None:
    assert refused(typed, Free())[0]["msg"] == "expected Typed, got Free"
    for args in (SECRET, 3, [("number", 3)], object(), Typed):
        assert "expected Typed or a mapping, got" in refused(typed, args)[0]["msg"]


def test_a_model_changed_so_that_it_no_longer_fits() -> None:
    changed = Typed()
    changed.number = SECRET  # type: ignore[assignment]
    assert refused(typed, changed)[0]["loc"] == ["number"]
    changed = Typed()
    changed.limited = SECRET
    assert refused(typed, changed)[0]["loc"] == ["limited"]
    assert refused(typed, Typed.model_construct(number=SECRET))


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf, [math.nan], {"a": math.inf}])
def test_numbers_that_json_lacks(number: Any) -> None:
    assert "NaN or infinity" in refused(free, {"value": number})[0]["msg"]
    assert refused(real, {"number": number})
    assert refused(extras, {"extra": number})
    with pytest.raises(InvalidArguments, match="NaN, infinite"):
        check_json("task", {"value": number})


@pytest.mark.parametrize("text", ["\x00", "a\x00b", "\\\x00", "\\\\\x00"])
def test_nul_is_refused_wherever_it_stands(text: str) -> None:
    for value in (text, [text], {text: 1}):
        assert "NUL" in refused(free, {"value": value})[0]["msg"]
        with pytest.raises(InvalidArguments, match="NUL"):
            check_json("task", {"value": value})


@pytest.mark.parametrize("text", ["\\u0000", "\\\\u0000", "u0000", "\x01", "\x7f"])
def test_what_only_looks_like_nul_is_kept(text: str) -> None:
    assert encode(free, {"value": [text, {text: 1}]}) == {"value": [text, {text: 1}]}


@pytest.mark.parametrize("text", ["\ud800", "a\udfff", "\udc00\ud800"])
def test_half_a_surrogate_pair(text: str) -> None:
    for value in (text, {text: 1}):
        assert "surrogate" in refused(free, {"value": value})[0]["msg"]
        with pytest.raises(InvalidArguments, match="surrogate"):
            check_json("task", {"value": value})


def test_the_limit_is_exact() -> None:
    most = MAX_ARGS_BYTES - len('{"value": ""}')
    assert len(encode(free, {"value": "x" * most})["value"]) == most
    assert encode(free, {"value": "ü" * (most // 2)})
    assert check_json("task", {"value": "x" * most})
    for text in ("x" * (most + 1), "ü" * (most // 2 + 1), "\\" * most):
        with pytest.raises(ArgumentsTooLarge) as raised:
            encode(free, {"value": text})
        assert raised.value.size > raised.value.limit == MAX_ARGS_BYTES
        with pytest.raises(ArgumentsTooLarge):
            check_json("task", {"value": text})


def test_circles_depths_and_long_numbers() -> None:
    circle: dict[str, Any] = {}
    circle["value"] = circle
    deep: Any = None
    for _ in range(100_000):
        deep = [deep]
    model = Free(value={})
    model.value["self"] = model.value
    for args in (circle, {"value": circle}, {"value": deep}, model, {"value": 10**5000}):
        assert refused(free, args)
    for args in (circle, {"value": deep}, {"value": 10**5000}):
        with pytest.raises(InvalidArguments):
            check_json("task", args)


def test_what_has_no_json_form() -> None:
    assert refused(free, {"value": object()})[0]["msg"] == "Unable to serialize unknown type: <class 'object'>"
    assert refused(free, {"value": b"\xff"})
    assert refused(free, {"value": lambda: SECRET})

    class Raising(BaseModel):
        x: str

        @field_serializer("x")
        def fail(self, value: str) -> str:
            raise ValueError(value)

    @group.internal_mutation
    def raising(args: Raising) -> None: ...

    assert refused(raising, {"x": SECRET})


def test_what_is_no_json_object() -> None:
    @group.internal_mutation
    def rooted(args: RootModel[list[str]]) -> None: ...

    assert "does not become a JSON object" in refused(rooted, RootModel[list[str]]([SECRET]))[0]["msg"]
    assert refused(rooted, {"a": SECRET})


def test_what_json_would_not_bring_back() -> None:
    class Account(BaseModel):
        password: SecretStr = SecretStr("")
        key: SecretBytes = SecretBytes(b"")
        hidden: str = Field(default="", exclude=True)
        inner: list[dict[str, Any]] = []
        sub: Account | None = None

    @group.internal_mutation
    def create(args: Account) -> None: ...

    assert encode(create, Account())
    secret = SecretStr(SECRET)
    lost: list[tuple[Account, list[str]]] = [
        (Account(password=secret), ["password"]),
        (Account(key=SecretBytes(SECRET.encode())), ["key"]),
        (Account(hidden=SECRET), ["hidden"]),
        (Account(sub=Account(password=secret)), ["sub", "password"]),
    ]
    for account, loc in lost:
        detail = refused(create, account)[0]
        assert detail["loc"] == loc
        assert "does not bring it back" in detail["msg"]


def test_the_arguments_of_a_plain_task_are_named() -> None:
    assert check_json("task", {"x": (1, 2)}) == {"x": [1, 2]}
    for args in ([1], "x", None, 3, {1: 2}, {"x": object()}, {"x": {1, 2}}, {"x": {(1,): 2}}):
        with pytest.raises(InvalidArguments) as raised:
            check_json("task", args)
        assert raised.value.function == "task"
