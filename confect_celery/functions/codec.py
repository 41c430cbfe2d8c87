"""Arguments on their way into the row and out of it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final

from pydantic import BaseModel, ValidationError
from pydantic_core import PydanticSerializationError

from confect_celery.errors import ArgumentsTooLarge, InvalidArguments
from confect_celery.functions.ref import FunctionRef

__all__ = ["MAX_ARGS_BYTES", "check_json", "decode", "encode"]

MAX_ARGS_BYTES: Final = 2**20
"""The most bytes that arguments may take as JSON in UTF-8."""

_NUL: Final = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")


def encode(ref: FunctionRef[Any, Any], args: object) -> dict[str, Any]:
    """The JSON form of `args`: an instance of the function's model, a mapping that fits it, or None for nothing.

    Raises InvalidArguments, whose details never repeat the values, and ArgumentsTooLarge.
    """
    signature = ref.signature
    if signature.adapter is None:
        if args is None or args == {}:
            return {}
        raise _invalid(ref.name, "it takes no arguments")
    given = {} if args is None else args
    if isinstance(given, BaseModel) and not isinstance(given, signature.model):
        raise _invalid(ref.name, f"expected {signature.model.__name__}, got {type(given).__name__}")
    if not isinstance(given, (BaseModel, Mapping)):
        raise _invalid(ref.name, f"expected {signature.model.__name__} or a mapping, got {type(given).__name__}")
    try:
        value = given if isinstance(given, BaseModel) else signature.adapter.validate_python(dict(given))
        dumped = signature.adapter.dump_python(value, mode="json", by_alias=True, round_trip=True, warnings="error")
        text = _to_json(ref.name, dumped)
        signature.adapter.validate_json(text)  # what is written now must be readable when it is due
    except ValidationError as error:
        raise _misfit(ref.name, error) from None
    except PydanticSerializationError as error:
        raise _invalid(ref.name, str(error).splitlines()[0]) from None
    loaded: dict[str, Any] = json.loads(text)
    return loaded


def decode(ref: FunctionRef[Any, Any], stored: object) -> Any:
    """The model that the function takes, from what the row holds; None for a function without arguments.

    Raises InvalidArguments when it does not fit (any more).
    """
    adapter = ref.signature.adapter
    if adapter is None:
        if stored:
            raise _invalid(ref.name, "it takes no arguments any more")
        return None
    try:
        return adapter.validate_json(json.dumps(stored))
    except ValidationError as error:
        raise _misfit(ref.name, error) from None


def check_json(name: str, value: object) -> dict[str, Any]:
    """A plain task's named arguments as JSON: the same bounds, no model."""
    if not isinstance(value, Mapping):
        raise _invalid(name, f"expected a mapping of keyword arguments, got {type(value).__name__}")
    loaded: dict[str, Any] = json.loads(_to_json(name, dict(value)))
    return loaded


def _to_json(name: str, value: object) -> str:
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
        size = len(text.encode())
    except (TypeError, ValueError, RecursionError) as error:
        raise _invalid(name, f"not JSON: {error}") from None
    if _NUL.search(text):
        raise _invalid(name, "a text holds the character NUL, which no database keeps")
    if size > MAX_ARGS_BYTES:
        raise ArgumentsTooLarge(name, size, MAX_ARGS_BYTES)
    return text


def _invalid(name: str, message: str) -> InvalidArguments:
    return InvalidArguments(name, [{"type": "invalid", "loc": (), "msg": message}])


def _misfit(name: str, error: ValidationError) -> InvalidArguments:
    details = error.errors(include_url=False, include_input=False, include_context=False)
    return InvalidArguments(name, [{**detail, "loc": list(detail["loc"])} for detail in details])
