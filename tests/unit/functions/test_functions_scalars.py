"""Which models JSON surely brings back, so that nobody need look."""

from __future__ import annotations

import enum
from typing import Annotated, Any, Literal

import pytest
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    PrivateAttr,
    RootModel,
    TypeAdapter,
    computed_field,
    create_model,
    field_serializer,
    field_validator,
    model_serializer,
    model_validator,
)
from typing_extensions import TypedDict

from confect_celery.functions.scalars import Scalars


class One(BaseModel):
    n: int


class Text(enum.StrEnum):
    A = "a"


def configured(**config: Any) -> Any:
    return create_model("Configured", __config__=ConfigDict(**config), n=(int, 0), text=(str | None, None))  # type: ignore[call-overload]


def with_field(annotation: Any, default: Any = ...) -> Any:
    return create_model("WithField", n=(annotation, default))


class Described(BaseModel):
    """Documented."""

    n: int = Field(3, title="N", description="A number.", examples=[1], frozen=True, repr=False)
    text: str = Field(default_factory=str)
    is_so: bool | None = None


PLAIN = [
    *(One, Described, with_field(int), with_field(str, "x"), with_field(bool | None, None)),
    *(configured(extra="forbid"), configured(extra="ignore"), configured(frozen=True), configured(strict=True)),
    *(configured(validate_assignment=True), configured(populate_by_name=True), configured(from_attributes=True)),
]


class Validated(One):
    @field_validator("n")
    @classmethod
    def check(cls, n: int) -> int:
        return n


class Checked(One):
    @model_validator(mode="after")
    def check(self) -> Checked:
        return self


class Prepared(One):
    @model_validator(mode="before")
    @classmethod
    def prepare(cls, value: Any) -> Any:
        return value


class Written(One):
    @field_serializer("n")
    def write(self, n: int) -> int:
        return n


class WrittenWhole(One):
    @model_serializer
    def write(self) -> dict[str, int]:
        return {"n": self.n}


class Computed(One):
    @computed_field  # type: ignore[prop-decorator]
    @property
    def twice(self) -> int:
        return 2 * self.n


class Private(One):
    _seen: int = PrivateAttr(0)


class Initialized(One):
    def model_post_init(self, _: Any) -> None:
        self.n += 1


class OwnInit(One):
    def __init__(self, n: int) -> None:
        super().__init__(n=n)


class Typed(TypedDict):
    n: int


class Recursive(BaseModel):
    n: int
    next: Recursive | None = None


OTHERS = [
    *(Validated, Checked, Prepared, Written, WrittenWhole, Computed, Private, Initialized, OwnInit, Typed, Recursive),
    *(RootModel[int], RootModel[list[int]], with_field(One), with_field(float), with_field(bytes), with_field(Any)),
    *(with_field(int | str), with_field(list[int]), with_field(Text), with_field(Literal["a"]), with_field(None)),
    *(with_field(int, Field(gt=0)), with_field(str, Field(max_length=3)), with_field(str, Field(pattern="a"))),
    *(with_field(int, Field(strict=True)), with_field(int, Field(alias="m")), with_field(int, Field(exclude=True))),
    *(with_field(int, Field(validation_alias="m")), with_field(int, Field(serialization_alias="m"))),
    *(with_field(Annotated[int, AfterValidator(abs)]), with_field(Annotated[int, PlainSerializer(str)])),
    *(Annotated[One, AfterValidator(lambda one: one)], Annotated[One, PlainSerializer(dict)]),
    *(configured(extra="allow"), configured(alias_generator=str.upper), configured(str_strip_whitespace=True)),
    *(configured(str_to_lower=True), configured(str_max_length=3), configured(str_min_length=1)),
]


@pytest.mark.parametrize("model", PLAIN, ids=range(len(PLAIN)))
def test_plain(model: Any) -> None:
    scalars = Scalars.of(TypeAdapter(model))
    assert scalars is not None
    value = model(n="1" if model.model_fields["n"].annotation is str else 1)
    assert scalars.has(value)
    assert not scalars.has({"n": 1})
    assert not scalars.has(create_model("Wider", __base__=model)(n=value.n))
    assert not scalars.has(model.model_construct(**{**value.__dict__, "n": 1.5}))
    assert not scalars.has(model.model_construct(**{**value.__dict__, "n": b"1"}))


@pytest.mark.parametrize("model", OTHERS, ids=range(len(OTHERS)))
def test_others(model: Any) -> None:
    assert Scalars.of(TypeAdapter(model)) is None


def test_a_field_that_is_not_there_or_of_another_name() -> None:
    scalars = Scalars.of(TypeAdapter(One))
    assert scalars is not None
    assert not scalars.has(One.model_construct(m=1))
    value = One(n=1)
    value.__dict__["more"] = 1
    assert not scalars.has(value)
