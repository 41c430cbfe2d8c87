"""Any JSON comes back as it was; anything else is refused by an error of ours."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from confect_celery.errors import ArgumentsTooLarge, InvalidArguments
from confect_celery.functions import Group, Registry
from confect_celery.functions.codec import check_json, decode, encode

group = Group(Registry(), "codec")


class Free(BaseModel):
    value: Any = None


class Typed(BaseModel):
    number: int = 0
    free: Free | None = None
    mapped: dict[int, str] = {}


@group.internal_mutation
def free(args: Free) -> None: ...
@group.internal_mutation
def typed(args: Typed) -> None: ...
@group.internal_mutation
def no_args() -> None: ...


TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner),
    max_leaves=20,
)


@given(JSON)
def test_any_json_comes_back(value: Any) -> None:
    stored = encode(free, {"value": value})
    assert stored == {"value": value}
    assert decode(free, stored) == Free(value=value)
    assert check_json("task", {"value": value}) == {"value": value}


ANYTHING = st.one_of(
    JSON,
    st.text(),
    st.binary(),
    st.floats(),
    st.complex_numbers(),
    st.datetimes(),
    st.decimals(),
    st.fractions(),
    st.dictionaries(st.integers() | st.text() | st.tuples(st.integers()), st.text() | st.floats() | st.binary()),
    st.sets(st.integers()),
    st.functions(),
    st.builds(object),
    st.builds(Free, value=st.binary() | st.floats()),
    st.sampled_from([Free, int, ..., NotImplemented, range(3), group]),
)


@given(ANYTHING, ANYTHING)
def test_anything_else_is_refused_with_an_error_of_ours(args: Any, value: Any) -> None:
    for ref in (free, typed, no_args):
        for given_args in (
            args,
            {"value": value},
            {"number": value, "mapped": args},
            Free.model_construct(value=value),
        ):
            with suppress(InvalidArguments, ArgumentsTooLarge):
                decode(ref, encode(ref, given_args))
            with suppress(InvalidArguments, ArgumentsTooLarge):
                check_json("task", given_args)
