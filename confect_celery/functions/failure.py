"""An exception as the row keeps it."""

from __future__ import annotations

import json
import traceback
from typing import Any, Final

from pydantic_core import to_jsonable_python

from confect_celery.errors import ConfectError

__all__ = ["describe"]

_MESSAGE: Final = 4_000
_TRACEBACK: Final = 16_000
_DATA: Final = 16_384


def describe(error: BaseException, declared: tuple[type[Exception], ...] = ()) -> dict[str, Any]:
    """The error as JSON: `tag` is its class's name, `message` its text, both bounded.

    An error that the function declared, and one of this package's, keeps its public fields as `data`. Any other one
    keeps its traceback. It never raises, whatever the error's own methods do.
    """
    described: dict[str, Any] = {"tag": type(error).__name__, "message": _bounded(_text(error), _MESSAGE)}
    if isinstance(error, (*declared, ConfectError)):
        data = _data(error)
        if data:
            described["data"] = data
    else:
        described["traceback"] = _bounded(_traceback(error), _TRACEBACK)
    return described


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as broken:
        return f"(its message could not be made: {type(broken).__name__})"


def _traceback(error: BaseException) -> str:
    try:
        return "".join(traceback.format_exception(error))
    except Exception as broken:
        return f"(its traceback could not be made: {type(broken).__name__})"


def _data(error: BaseException) -> dict[str, Any]:
    try:
        fields = {name: value for name, value in vars(error).items() if not name.startswith("_")}
        text = json.dumps(to_jsonable_python(fields), allow_nan=False).replace("\\u0000", "")
        if len(text) > _DATA:
            return {"omitted": f"its fields take more than {_DATA} bytes"}
        loaded: dict[str, Any] = json.loads(text)
        return loaded
    except Exception as broken:
        return {"omitted": f"its fields are not JSON: {type(broken).__name__}"}


def _bounded(text: str, limit: int) -> str:
    clean = text.replace("\x00", "").encode(errors="replace").decode()
    if len(clean) <= limit:
        return clean
    half = limit // 2 - 10
    return f"{clean[:half]}\n… cut …\n{clean[-half:]}"
