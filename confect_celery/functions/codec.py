"""Arguments on their way into the row and out of it."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any, Final, Literal

from pydantic import BaseModel, SecretBytes, SecretStr, TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError

from confect_celery.errors import ArgumentsTooLarge, InvalidArguments
from confect_celery.functions.ref import FunctionRef
from confect_celery.functions.scalars import Scalars

__all__ = ["MAX_ARGS_BYTES", "check_json", "decode", "encode", "encode_as_text", "is_plain"]

MAX_ARGS_BYTES: Final = 2**20
"""The most bytes that arguments may take as JSON in UTF-8."""

_SURELY_SMALL: Final = MAX_ARGS_BYTES // 2
"""The limit is on the text with a space after each comma and colon, which is less than twice as long."""

_READABLE: Final = 4000
"""A whole number of more than 4,300 digits is none that can be read again."""

_SCALARS: Final = frozenset({bool, int, float, str, type(None)})

_ENCODER: Final = json.JSONEncoder(ensure_ascii=False, allow_nan=False)
_NUL: Final = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")
_SURROGATE: Final = "not JSON: a text holds half a surrogate pair, which UTF-8 cannot tell"
_FIELD: Final = re.compile(r"\[field_name='(\w+)', input_value=")


def encode(ref: FunctionRef[Any, Any], args: object) -> dict[str, Any]:
    """The JSON form of `args`: an instance of the function's model, a mapping that fits it, or None for nothing.

    Its keys are the fields' names, never their aliases, so that a row outlives a changed alias. What JSON would not
    bring back, such as a masked secret or NaN, is refused.

    Raises InvalidArguments, whose details never repeat the values, and ArgumentsTooLarge.
    """
    loaded: dict[str, Any] = json.loads(encode_as_text(ref, args))
    return loaded


def encode_as_text(ref: FunctionRef[Any, Any], args: object) -> bytes:
    """The same as the text of a JSON object, ASCII in bytes: what goes to the database, no value made of it between."""
    name, signature = ref.name, ref.signature
    adapter, model = signature.adapter, signature.model
    if adapter is None:
        if args is None or (isinstance(args, Mapping) and not args):
            return b"{}"
        raise _invalid(name, "it takes no arguments")
    given = args if type(args) is model else _model_or_mapping(name, model, {} if args is None else args)
    try:
        value = adapter.validator.validate_python(given) if type(given) is dict else given
        return (
            _text_at_once(adapter, value, signature.scalars)
            or json.dumps(_checked(name, model, adapter, value)).encode()
        )
    except ValidationError as error:
        raise _misfit(name, error) from None
    except PydanticSerializationError as error:
        raise _invalid(name, _reason(str(error)), *_FIELD.findall(str(error))[:1]) from None
    except UnicodeEncodeError:
        raise _invalid(name, _SURROGATE) from None
    except (ValueError, RecursionError):
        raise _invalid(name, "not JSON: it is circular or too deep") from None


def _text_at_once(adapter: TypeAdapter[Any], value: object, plain: Scalars | None) -> bytes | None:
    """Most arguments are small, and equal to what JSON brings back: pydantic's text of them is the row's. None for all
    others, right or wrong, which are looked at more closely."""
    try:
        if plain is not None and plain.has(value):
            raw = adapter.serializer.to_json(value, by_alias=False, round_trip=True, warnings=False)
            if len(raw) <= _READABLE and b"\\u0000" not in raw:
                return _in_ascii(raw)
        # A scalar that is not of its field's type is of another when it has come back. Where there is more than that,
        # pydantic has to look whether all is of its type, for which it takes three times as long.
        scalars = _types_of_scalars(value)
        refusing: Literal[False, "error"] = False if scalars is not None else "error"
        raw = adapter.serializer.to_json(value, by_alias=False, round_trip=True, warnings=refusing)
        if len(raw) > _SURELY_SMALL or b"\\u0000" in raw or b"NaN" in raw or b"Infinity" in raw:
            return None
        again: Any = adapter.validator.validate_json(raw, by_alias=False, by_name=True)
        if raw[:1] != b"{" or not (_plainly_equal(value, again) or _equal_dicts(value, again)):
            return None
        if scalars is not None and scalars != list(map(type, again.__dict__.values())):
            return None
        return _in_ascii(raw)
    except (ValueError, RecursionError):
        return None


def _in_ascii(raw: bytes) -> bytes:
    return raw if raw.isascii() and b"\x7f" not in raw else json.dumps(json.loads(raw)).encode()


def _types_of_scalars(value: Any) -> list[type] | None:
    """Those of a model's fields, where it has nothing but scalars."""
    fields = getattr(value, "__dict__", None)
    if fields is None or value.__pydantic_extra__:
        return None
    types = list(map(type, fields.values()))
    return types if _SCALARS.issuperset(types) else None


def _checked(name: str, model: Any, adapter: TypeAdapter[Any], value: Any) -> dict[str, Any]:
    dumped = adapter.dump_python(value, mode="json", by_alias=False, round_trip=True, warnings="error")
    text = _to_json(name, dumped)
    again = adapter.validate_json(text, by_alias=False, by_name=True)  # it must be readable when it is due
    lost = None if _plainly_equal(value, again) else _lost(value, again)
    if lost is not None:
        raise _invalid(name, "JSON does not bring it back (a secret, an excluded field, NaN or infinity)", *lost)
    loaded = json.loads(text)
    if not isinstance(loaded, dict):
        raise _invalid(name, f"{model.__name__} does not become a JSON object")
    return loaded


def _model_or_mapping(name: str, model: Any, args: object) -> BaseModel | dict[str, Any]:
    if isinstance(args, BaseModel):
        if model not in type(args).__mro__:
            raise _invalid(name, f"expected {model.__name__}, got {type(args).__name__}")
        return args
    if isinstance(args, Mapping):
        return dict(args)
    raise _invalid(name, f"expected {model.__name__} or a mapping, got {type(args).__name__}")


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
        return adapter.validate_json(json.dumps(stored), by_alias=False, by_name=True)
    except ValidationError as error:
        raise _misfit(ref.name, error) from None


def check_json(name: str, value: object) -> dict[str, Any]:
    """A plain task's named arguments as JSON: the same bounds, no model."""
    if not isinstance(value, Mapping):
        raise _invalid(name, f"expected a mapping of keyword arguments, got {type(value).__name__}")
    if not all(isinstance(key, str) for key in value):
        raise _invalid(name, "not JSON: keyword arguments are named by texts")
    text = _to_json(name, dict(value))
    loaded: dict[str, Any] = dict(value) if _is_flat(value) else json.loads(text)
    return loaded


def is_plain(value: object) -> bool:
    """Whether it is a dict that holds nothing but texts, numbers, truth values, None, and lists and dicts of these: any
    serializer of JSON brings that back."""
    try:
        return type(value) is dict and _comes_back(value)
    except RecursionError:
        return False


def _comes_back(value: object) -> bool:
    if type(value) is list:
        return _SCALARS.issuperset(map(type, value)) or all(map(_comes_back, value))
    if type(value) is dict:
        return _is_flat(value) or all(type(key) is str and _comes_back(held) for key, held in value.items())
    return type(value) in _SCALARS


def _is_flat(value: Mapping[str, Any]) -> bool:
    return type(value) is dict and all(type(key) is str and type(held) in _SCALARS for key, held in value.items())


def _to_json(name: str, value: object) -> str:
    try:
        text = _ENCODER.encode(value)
        size = len(text) if text.isascii() else len(text.encode())
    except UnicodeEncodeError:
        raise _invalid(name, _SURROGATE) from None
    except (TypeError, RecursionError) as error:
        raise _invalid(name, f"not JSON: {error}") from None
    except ValueError:
        raise _invalid(name, "not JSON: it is circular, or a number is NaN, infinite or too long") from None
    if "\\u0000" in text and _NUL.search(text):
        raise _invalid(name, "a text holds the character NUL, which no database keeps")
    if size > MAX_ARGS_BYTES:
        raise ArgumentsTooLarge(name, size, MAX_ARGS_BYTES)
    return text


def _plainly_equal(before: Any, after: Any) -> bool:
    """Whether two models are equal, but for private attributes, which are no arguments: `==` takes longer."""
    return (
        type(before) is type(after)
        and getattr(type(before), "__eq__") is BaseModel.__eq__  # noqa: B009  # checkers see object's there
        and before.__dict__ == after.__dict__
        and before.__pydantic_extra__ == after.__pydantic_extra__
    )


def _equal_dicts(before: Any, after: Any) -> bool:
    return type(before) is dict and before == after and _lost(before, after) is None


def _lost(before: Any, after: Any, *at: str) -> tuple[str, ...] | None:
    """Where a value stands that JSON silently masks or leaves out; None where all is well."""
    if isinstance(before, (SecretStr, SecretBytes)):
        return None if before == after else at
    if isinstance(before, float):  # pydantic writes NaN and infinity as null
        return at if not math.isfinite(before) and after is None else None
    inner: list[tuple[Any, Any, str]] = []
    if isinstance(before, BaseModel) and isinstance(after, BaseModel):
        for name, field in type(after).model_fields.items():
            mine, other = getattr(before, name, None), getattr(after, name, None)
            if field.exclude and mine != other:
                return (*at, name)
            inner.append((mine, other, name))
        extra = after.model_extra or {}
        inner += [(mine, extra.get(name), name) for name, mine in (before.model_extra or {}).items()]
    elif isinstance(before, dict) and isinstance(after, dict):
        inner = [(before[key], after[key], str(key)) for key in before.keys() & after.keys()]
    elif isinstance(before, (list, tuple)) and isinstance(after, (list, tuple)):
        inner = [(mine, other, str(place)) for place, (mine, other) in enumerate(zip(before, after, strict=False))]
    found = (_lost(mine, other, *at, name) for mine, other, name in inner)
    return next((place for place in found if place is not None), None)


def _reason(text: str) -> str:
    # Whatever else pydantic says here may repeat the value.
    unknown = re.match(r"Unable to serialize unknown type: .*", text)
    return unknown[0] if unknown else "a value is not of its field's type, or has no JSON form"


def _invalid(name: str, message: str, *at: str) -> InvalidArguments:
    return InvalidArguments(name, [{"type": "invalid", "loc": list(at), "msg": message}])


def _misfit(name: str, error: ValidationError) -> InvalidArguments:
    details = []
    for detail in error.errors(include_url=False, include_input=False):
        message = detail["msg"]
        if detail["type"] == "union_tag_invalid":  # the one message of pydantic's that repeats what it was given
            message = f"The tag is none of {detail.get('ctx', {}).get('expected_tags')}"
        details.append({"type": detail["type"], "loc": list(detail["loc"]), "msg": message})
    return InvalidArguments(name, details)
