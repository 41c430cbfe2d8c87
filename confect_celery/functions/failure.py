"""An exception as the row keeps it."""

from __future__ import annotations

import json
import math
import traceback
from collections.abc import Callable
from typing import Any, Final

from pydantic_core import to_jsonable_python

from confect_celery.errors import ConfectError

__all__ = ["describe"]

_TAG: Final = 200
_MESSAGE: Final = 4_000
_TRACEBACK: Final = 16_000
_DATA: Final = 16_384


def describe(error: BaseException, declared: tuple[type[Exception], ...] = ()) -> dict[str, Any]:
    """The error as JSON: `tag` is its class's name, `message` its text, both bounded.

    An error that the function declared, and one of this package's, keeps its public fields as `data`. Any other one
    keeps its traceback. It never raises, whatever the error's own methods do.
    """
    described: dict[str, Any] = {
        "tag": _bounded(type(error).__name__, _TAG),
        "message": _text(lambda: str(error), _MESSAGE, "message"),
    }
    if issubclass(type(error), (*declared, ConfectError)):  # isinstance would ask the error for its __class__
        data = _data(error)
        if data:
            described["data"] = data
    else:
        described["traceback"] = _text(lambda: "".join(traceback.format_exception(error)), _TRACEBACK, "traceback")
    return described


def _text(make: Callable[[], str], limit: int, what: str) -> str:
    try:
        return _bounded(make(), limit)
    except Exception as broken:
        return f"(its {what} could not be made: {type(broken).__name__})"


def _data(error: BaseException) -> dict[str, Any]:
    try:
        names = dict.fromkeys(getattr(error, "__dict__", {}))
        # A dataclass with slots has its fields there, not in __dict__.
        names |= dict.fromkeys(getattr(error, "__dataclass_fields__", {}))
        data = {_clean(name): _field(error, name) for name in names if not name.startswith("_")}
        if len(json.dumps(data, allow_nan=False)) > _DATA:
            return {"omitted": f"its fields take more than {_DATA} bytes"}
        return data
    except Exception as broken:
        return {"omitted": f"its fields are not JSON: {type(broken).__name__}"}


def _field(error: BaseException, name: str) -> Any:
    try:
        return _clean(to_jsonable_python(getattr(error, name), fallback=_no_json))
    except Exception as broken:  # the other fields still tell something
        return f"(not JSON: {type(broken).__name__})"


def _no_json(value: object) -> str:
    return f"(not JSON: {type(value).__name__})"


def _clean(value: Any) -> Any:
    """Without what JSON or a database refuses: NUL, half surrogate pairs, numbers that are not finite."""
    if isinstance(value, str):
        return value.replace("\x00", "").encode(errors="replace").decode()
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {_clean(key): _clean(each) for key, each in value.items()}
    return [_clean(each) for each in value] if isinstance(value, list) else value


def _bounded(text: str, limit: int) -> str:
    if len(text) > limit:
        half = limit // 2 - 10
        text = f"{text[:half]}\n… cut …\n{text[-half:]}"
    cleaned: str = _clean(text)
    return cleaned
