"""Calls of plain Celery tasks as JSON: on their way into the row, and out of it into a message again.

What Celery's own JSON serializer brings back (datetimes, UUIDs, decimals, bytes) comes back here as well: the row holds
the form that it gives them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from celery.utils.saferepr import saferepr
from kombu.exceptions import EncodeError
from kombu.utils.json import dumps, loads

from confect_celery.errors import InvalidArguments, NotSchedulable
from confect_celery.functions import codec
from confect_celery.store import Delivery, EncodedCall, Pending

__all__ = [
    "ATTEMPT_HEADER",
    "HIDDEN",
    "LOADED",
    "RUNS_AS",
    "Call",
    "call_in",
    "call_of",
    "decode",
    "encode_call",
    "loaded_row",
    "renamed",
    "shown",
    "task_name",
]

ATTEMPT_HEADER: Final = "confect_attempt"
"""The header with the attempt that this message is for: a message with an older one starts nothing."""

RUNS_AS: Final = "confect_task"
"""The option that names the task which now runs in the row's name, after `replace()`."""

_LONGEST_REPR: Final = 1024
"""As Celery's own `argsrepr_maxsize`: it goes in a header, and RabbitMQ refuses headers of more than 128 KiB."""

HIDDEN: Final = "(hidden)"
"""What Flower and the logs show of arguments that the shop does not want to see there."""


_MARK: Final = '"__type__"'
"""Only where this stands, Celery's serializer has more to say than JSON does."""


LOADED: Final = "confect_loaded"
"""Set on the request of a row that came in a batch: the row, as it was read together with the others."""


def shown(value: Any) -> str:
    """What Flower and the logs show of arguments, cut at 1024 characters as Celery does."""
    # What is short needs no care; Celery's own function takes ten times as long over it.
    text = repr(value)
    return text if len(text) <= _LONGEST_REPR else saferepr(value, _LONGEST_REPR)


def loaded_row(request: Any) -> Pending | None:
    """The row, where it was read already. Headers of messages become attributes too: only an object of ours counts."""
    loaded = getattr(request, LOADED, None)
    return loaded if isinstance(loaded, Pending) else None


def call_of(function: Any, args: Any) -> EncodedCall:
    """Take apart a Celery task or signature, or take what came of it; `args` become keyword arguments.

    Raises NotSchedulable for what is none of them, InvalidArguments and ArgumentsTooLarge.
    """
    if isinstance(function, EncodedCall):
        if args is None:
            return function
        named = {**function.args, **_named(function.name, args)}
        return EncodedCall(function.name, function.kind, _checked(function.name, named), function.options)
    if isinstance(function, Mapping) and isinstance(function.get("task"), str):  # a signature is a dict
        if function.get("subtask_type") in ("chain", "group"):
            alternative = "Schedule a task or an internal action that starts it, or capture its own apply_async()."
            raise NotSchedulable(repr(function), f"a {function['subtask_type']} is no task of its own", alternative)
        named = dict(function.get("kwargs") or {})
        positional, options = function.get("args") or (), function.get("options") or {}
        name = function["task"]
    elif callable(getattr(function, "apply_async", None)) and isinstance(getattr(function, "name", None), str):
        named, positional, options, name = {}, (), {}, str(function.name)  # pyright: ignore[reportAttributeAccessIssue]
    else:
        alternative = "Give an internal mutation or action, a refs path, or a Celery task or signature."
        raise NotSchedulable(repr(function), "it is no function of this app and no Celery task", alternative)
    if args is not None:
        named.update(_named(name, args))
    return encode_call(name, positional, named, options)


def encode_call(
    name: str, args: Sequence[Any] | None, kwargs: Mapping[str, Any] | None, options: Mapping[str, Any]
) -> EncodedCall:
    """A call of the task `name`, with all that `apply_async` was given, for its row."""
    named = _checked(name, kwargs or {})
    given = {key: value for key, value in options.items() if value is not None}
    headers = {key: value for key, value in (given.pop("headers", None) or {}).items() if key != ATTEMPT_HEADER}
    if headers:
        given["headers"] = headers
    if args:
        given["args"] = list(args)
    return EncodedCall(name, "task", named, _checked(name, given))


def renamed(call: EncodedCall, name: str) -> EncodedCall:
    """The call, in the row of the task `name`, which it replaces."""
    return call if call.name == name else EncodedCall(name, call.kind, call.args, {**call.options, RUNS_AS: call.name})


def task_name(name: str, options: Mapping[str, Any]) -> str:
    """The name of the task that runs in the name of a row."""
    return str(options.get(RUNS_AS, name))


def decode(stored: Any) -> Any:
    """What the row holds, as Celery's serializer would have brought it to the task; the caller's own."""
    text = json.dumps(stored)
    return loads(text) if _MARK in text else json.loads(text)


class Call(NamedTuple):
    """The call in a row: what runs, the options of its message, the arguments by position and by name."""

    name: str
    given: dict[str, Any]
    args: list[Any]
    kwargs: dict[str, Any]


def call_in(delivery: Delivery) -> Call:
    """The call that a delivery stands for: a plain task's arguments decoded, a function's as the row has them.

    Raises TypeError where they are no arguments.
    """
    plain = delivery.kind == "task"
    given = decode(delivery.options) if plain and delivery.options else dict(delivery.options)
    kwargs = decode(delivery.args) if plain else delivery.args
    positional: list[Any] = given.pop("args", [])
    if not isinstance(kwargs, dict) or not isinstance(positional, list):
        raise TypeError("its arguments are no JSON object, or those by position no list")
    return Call(task_name(delivery.name, given), given, positional, kwargs)


def _named(name: str, args: Any) -> Mapping[str, Any]:
    return args if codec.is_plain(args) else codec.check_json(name, _as_json(name, args))


def _checked(name: str, value: Mapping[str, Any]) -> dict[str, Any]:
    return codec.check_json(name, value if codec.is_plain(value) else _as_json(name, value)) if value else {}


def _as_json(name: str, value: Any) -> Any:
    try:
        return json.loads(dumps(value))
    except (TypeError, ValueError, RecursionError, EncodeError) as error:
        details = [{"type": "invalid", "loc": [], "msg": f"not JSON: {type(error).__name__}"}]
        raise InvalidArguments(name, details) from None
