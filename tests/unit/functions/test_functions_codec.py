"""Arguments into JSON and back, whatever their model."""

from __future__ import annotations

import datetime as dt
import enum
import uuid
from collections.abc import Mapping
from decimal import Decimal
from types import MappingProxyType
from typing import Any, Generic, Literal, NotRequired, TypeVar

import pytest
from pydantic import (
    AliasPath,
    BaseModel,
    ConfigDict,
    Field,
    Json,
    RootModel,
    SecretStr,
    computed_field,
    field_serializer,
)
from typing_extensions import TypedDict

from confect_celery.errors import InvalidArguments
from confect_celery.functions import FunctionRef, Group, Registry
from confect_celery.functions.codec import decode, encode
from confect_celery.timing import DateTime, Duration

T = TypeVar("T")


def ref_of(model: Any) -> FunctionRef[Any, Any]:
    def call(args: Any) -> None: ...

    call.__annotations__["args"] = model
    ref: FunctionRef[Any, Any] = Group(Registry(), "codec").internal_mutation(call)
    return ref


@Group(Registry(), "codec").internal_mutation
def no_args() -> None: ...


class Colour(enum.Enum):
    RED = "red"


class Source(BaseModel):
    source: str


class Everything(BaseModel):
    text: str = "ü\U0001f600\\u0000"
    whole: int = 2**70
    number: float = 1e300
    flag: bool = True
    nothing: None = None
    when: DateTime = DateTime.parse("2026-03-08T12:00:00.000001Z")
    there: DateTime = DateTime.parse("2026-03-08T12:00:00Z").in_zone("Europe/Paris")
    span: Duration = Duration.micros(1)
    python: dt.datetime = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    day: dt.date = dt.date(2026, 1, 1)
    delta: dt.timedelta = dt.timedelta(days=-1, microseconds=3)
    id: uuid.UUID = uuid.UUID(int=7)
    money: Decimal = Decimal("1.10")
    colour: Colour = Colour.RED
    kind: Literal["a", "b"] = "b"
    nested: Source = Source(source="web")
    several: list[Source] = [Source(source="a")]
    pair: tuple[int, str] = (1, "a")
    some: set[int] = {1, 2, 3}
    raw: bytes = b"bytes"
    mapped: dict[int, Source] = {3: Source(source="m")}
    either: Source | int = 3
    text_json: Json[list[int]] = [1]


class Strict(Everything):
    model_config = ConfigDict(strict=True, extra="forbid")


class Aliased(BaseModel):
    model_config = ConfigDict(extra="forbid", serialize_by_alias=True)
    both: int = Field(alias="Both")
    reading: int = Field(default=0, validation_alias="Reading")
    writing: int = Field(default=0, serialization_alias="Writing")
    deep: int = Field(default=0, validation_alias=AliasPath("a", "b"))
    one: int = Field(alias="two")
    two: int = Field(alias="one")


class Open(BaseModel):
    model_config = ConfigDict(extra="allow")


class Computed(BaseModel):
    model_config = ConfigDict(extra="forbid")
    side: int

    @computed_field  # type: ignore[prop-decorator]
    @property
    def area(self) -> int:
        return self.side**2


class Revealed(BaseModel):
    password: SecretStr

    @field_serializer("password", when_used="json")
    def reveal(self, value: SecretStr) -> str:
        return value.get_secret_value()


class Box(BaseModel, Generic[T]):
    inside: T


SAMPLES: list[BaseModel] = [
    Everything(),
    Strict(),
    Aliased(Both=1, Reading=2, writing=3, a={"b": 4}, two=5, one=6),  # type: ignore[call-arg]
    Open(anything=["at", {"all": 1}]),  # type: ignore[call-arg]
    Computed(side=3),
    Revealed(password=SecretStr("hunter2")),
    Box[Source](inside=Source(source="x")),
    RootModel[dict[str, int]]({"a": 1}),
]


@pytest.mark.parametrize("model", SAMPLES, ids=lambda model: type(model).__name__)
def test_a_model_comes_back_as_it_was(model: BaseModel) -> None:
    ref = ref_of(type(model))
    stored = encode(ref, model)
    assert decode(ref, stored) == model
    assert encode(ref, decode(ref, stored)) == stored


def test_the_keys_are_the_fields_names() -> None:
    stored = encode(ref_of(Aliased), {"Both": 1, "Reading": 2, "a": {"b": 4}, "two": 5, "one": 6})
    assert stored == {"both": 1, "reading": 2, "writing": 0, "deep": 4, "one": 5, "two": 6}


def test_a_mapping_is_validated_as_pydantic_does() -> None:
    class Lax(BaseModel):
        number: int
        when: DateTime
        span: Duration = Duration.hours(1)

    when = DateTime.parse("2026-01-01T00:00:00Z")
    expected = {"number": 3, "when": "2026-01-01T00:00:00Z", "span": "PT1H"}
    for given in ({"number": "3", "when": when}, {"number": 3.0, "when": when.to_iso(), "unknown": 1}):
        assert encode(ref_of(Lax), given) == expected


@pytest.mark.parametrize("wrap", [MappingProxyType, lambda mapping: type("Sub", (dict,), {})(mapping)])
def test_any_mapping_will_do(wrap: Any) -> None:
    assert encode(ref_of(Source), wrap({"source": "web"})) == {"source": "web"}


def test_a_mapping_is_read_when_it_is_given() -> None:
    given: dict[str, Any] = {"tags": ["a"]}

    class Tagged(BaseModel):
        tags: Any

    stored = encode(ref_of(Tagged), given)
    given["tags"].append("b")
    assert stored == {"tags": ["a"]}


def test_a_typed_dict() -> None:
    class Task(TypedDict):
        task_id: uuid.UUID
        priority: int
        metadata: NotRequired[Mapping[str, str]]

    ref = ref_of(Task)
    stored = encode(ref, {"task_id": uuid.UUID(int=1), "priority": 2})
    assert stored == {"task_id": "00000000-0000-0000-0000-000000000001", "priority": 2}
    assert decode(ref, stored) == {"task_id": uuid.UUID(int=1), "priority": 2}
    for wrong in ({}, {"task_id": "x", "priority": 1}, Source(source="x"), [("priority", 1)]):
        with pytest.raises(InvalidArguments):
            encode(ref, wrong)


def test_a_subclass_is_kept_as_the_model() -> None:
    class More(Source):
        more: int

    assert encode(ref_of(Source), More(source="a", more=1)) == {"source": "a"}


def test_without_arguments() -> None:
    empty: list[object] = [None, {}, MappingProxyType({})]
    for nothing in empty:
        assert encode(no_args, nothing) == {}
    values: list[object] = [{"a": 1}, Source(source=""), Open(), [], 0, "", False]
    for something in values:
        with pytest.raises(InvalidArguments, match="it takes no arguments"):
            encode(no_args, something)
    assert decode(no_args, {}) is None
    assert decode(no_args, None) is None
    with pytest.raises(InvalidArguments, match="any more"):
        decode(no_args, {"a": 1})


def test_defaults_make_arguments_optional() -> None:
    class Defaults(BaseModel):
        x: int = 1

    assert encode(ref_of(Defaults), None) == encode(ref_of(Defaults), {}) == {"x": 1}
    with pytest.raises(InvalidArguments, match="source: Field required"):
        encode(ref_of(Source), None)


def test_what_no_longer_fits_when_it_is_due() -> None:
    rows: list[object] = [{}, {"source": 3}, None, [], "x", {"sauce": "x"}]
    for stored in rows:
        with pytest.raises(InvalidArguments) as raised:
            decode(ref_of(Source), stored)
        assert raised.value.function == "internal/codec/call"
    assert decode(ref_of(Source), {"source": "a", "gone": 1}) == Source(source="a")
