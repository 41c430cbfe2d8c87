"""Errors carry their facts, tell what to do, and cross process borders."""

from __future__ import annotations

import pickle

import pytest

from confect_celery import errors
from confect_celery.errors import ConfectError

SAMPLES: list[ConfectError] = [
    errors.InvalidSettings({"confect_horizn": "no such setting"}),
    errors.SchemaOutOfDate(None, "0001"),
    errors.InvalidCron("nightly", "it never matches"),
    errors.DuplicateFunction("internal/a/b"),
    errors.ServiceError("internal/a/b", "mailer", "there is no service Mailer."),
    errors.UnknownFunction("internal/a/bb", ["internal/a/b"]),
    errors.Unpublishable("shop.mail", "TypeError: its options are a list"),
    errors.Unreadable("01980000-0000-7000-8000-000000000000", "its args are no JSON"),
    errors.NotSchedulable("public/a/b", "it is public", "Make it internal."),
    errors.InvalidArguments("internal/a/b", [{"type": "missing", "loc": ["user", "id"], "msg": "Field required"}]),
    errors.ArgumentsTooLarge("internal/a/b", 2_000_000, 1_048_576),
    errors.DelayOutOfRange("0.5s", "1s", "1830d"),
    errors.TooManyScheduled(1000),
    errors.CannotCancelItself("01890000-0000-7000-8000-000000000000"),
    errors.NaiveDateTime("2026-01-01 00:00:00"),
    errors.InvalidTime("soon", "not a time"),
    errors.NonexistentTime("2026-03-29 02:30", "Europe/Paris", False),
    errors.UnknownTable("usres", ["users"]),
    errors.UnknownField("users", "emial", ["email"]),
    errors.InvalidFilter("no condition"),
    errors.NotFound("users", "u1"),
    errors.NotUnique("users"),
    errors.SystemTableReadOnly("_scheduled_functions", "insert"),
]


@pytest.mark.parametrize("error", SAMPLES, ids=lambda error: type(error).__name__)
def test_an_error_survives_pickling_whole(error: ConfectError) -> None:
    back = pickle.loads(pickle.dumps(error))
    assert type(back) is type(error)
    assert str(back) == str(error)
    assert vars(back) == vars(error)
    assert vars(error), "an error has fields"


def test_there_is_a_sample_of_every_error_that_is_raised() -> None:
    leaves = {getattr(errors, name) for name in errors.__all__}
    leaves -= {base for cls in leaves for base in cls.__mro__[1:]}
    assert leaves == {type(error) for error in SAMPLES}


def test_messages_say_what_to_do_next() -> None:
    texts = {type(error).__name__: str(error) for error in SAMPLES}
    assert "Did you mean 'internal/a/b'?" in texts["UnknownFunction"]
    assert "user.id: Field required" in texts["InvalidArguments"]
    assert "schedule with its id" in texts["ArgumentsTooLarge"]
    assert "confect_min_delay" in texts["DelayOutOfRange"]
    assert "DateTime.now()" in texts["NaiveDateTime"]
    assert "scheduler.cancel" in texts["SystemTableReadOnly"]
