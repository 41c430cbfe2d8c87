"""What a row holds of a plain task's call, however quickly that is told."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any
from unittest.mock import patch
from uuid import UUID

import pytest
from celery import Celery
from hypothesis import given, settings
from hypothesis import strategies as st

from confect_celery.errors import ArgumentsTooLarge, InvalidArguments
from confect_celery.functions import codec
from confect_celery.functions.codec import MAX_ARGS_BYTES
from confect_celery.runtime.messages import call_of, encode_call


@Celery("messages", set_as_current=False).task(name="messages.task")
def task(**named: Any) -> None: ...


def outcome(what: Any, args: Any) -> Any:
    try:
        return call_of(what, args), encode_call("t", [args], args, {"headers": args, "queue": None})
    except (InvalidArguments, ArgumentsTooLarge) as error:
        return type(error)


def assert_as_closely_looked_at(args: Any) -> None:
    for what in (task, task.s(mine=dt.date(2030, 1, 1), x=1)):
        quickly = outcome(what, args)
        with patch.object(codec, "is_plain", lambda _: False):
            assert repr(quickly) == repr(outcome(what, args))


class Text(str):
    __slots__ = ()


PLAIN = [{}, {"x": 1, "text": 'é \x7f "\\u0000"', "so": True, "none": None, "f": -0.0}, {"x": 1e22, "n": 10**30},
         {"list": [1, "a", None, True, 2.5], "empty": [], "deep": {"": [{"a": [[]]}]}}]  # fmt: skip
ITSELF: dict[str, Any] = {}
ITSELF["me"] = [ITSELF]
OTHERS: list[Any] = [
    *(ITSELF, json.loads(f'{{"deep": {"[" * 900}{"]" * 900}}}')),
    *({"at": dt.datetime(2030, 1, 1, tzinfo=dt.UTC)}, {"id": UUID(int=7), "raw": b"\xff"}, {"list": [(1,)]}),
    *({"list": [1, {"a": (2,)}]}, {"deep": {1: "a"}}, {"deep": [{Text("x"): [Text("a")]}]}),
    *({"text": "\x00"}, {"text": "\ud800"}, {"f": float("nan")}, {"f": float("inf")}, {"n": 1 << 14_300}),
    *({"text": "x" * MAX_ARGS_BYTES}, {"x": object()}, {1: "a"}, {"text": Text("a")}, {Text("x"): 1}, {None: 1}),
]


@pytest.mark.parametrize("args", [*PLAIN, *OTHERS], ids=range(len(PLAIN) + len(OTHERS)))
def test_a_quick_look_finds_what_a_close_one_does(args: Any) -> None:
    assert_as_closely_looked_at(args)


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.datetimes()


@settings(deadline=None)
@given(
    st.dictionaries(
        st.text(),
        st.recursive(SCALARS, lambda some: st.lists(some) | st.dictionaries(st.text(), some), max_leaves=5),
    )
)
def test_whatever_it_is(args: dict[str, Any]) -> None:
    assert_as_closely_looked_at(args)


@pytest.mark.parametrize("args", PLAIN, ids=range(len(PLAIN)))
def test_what_is_plain_goes_through_no_serializer(args: dict[str, Any]) -> None:
    with patch("confect_celery.runtime.messages.dumps", side_effect=AssertionError("serialized")):
        held = call_of(task, args).args
        assert held == args and held is not args
        assert all(held[key] is not value for key, value in args.items() if isinstance(value, list | dict))
        assert call_of(task.s(*args.values()), None).options == ({"args": list(args.values())} if args else {})


@pytest.mark.parametrize("args", [[("x", 1)], "x", 3, object()])
def test_what_is_no_mapping_is_refused(args: Any) -> None:
    with pytest.raises(InvalidArguments):
        call_of(task, args)
