"""Values as PostgreSQL's server takes them, written without the driver.

To make texts of a dozen values takes psycopg a tenth of what a call takes on the client, and the server reads them
again. The statement's own casts tell of which type each is. What is not plainly of that type is left to the driver, as
is all that is not ASCII, for which one would have to know the session's encoding.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Mapping, Sequence
from operator import methodcaller
from typing import Any, Final, NamedTuple

from confect_celery.timing import DateTime

__all__ = ["REFUSED", "Writing", "writing"]

Write = Callable[[Any], bytes]

REFUSED: Final = (AttributeError, TypeError, UnicodeEncodeError, OverflowError)
"""What a writer raises for a value that is not of its type."""

_AS_TEXT: Final = 0
_AS_KEPT: Final = 1
_MICROS_OF_2000: Final = 946_684_800_000_000
_eight_bytes: Final = struct.Struct(">q").pack


def _time(value: Any) -> bytes:
    micros = value.epoch_micros if type(value) is DateTime else DateTime.of(value).epoch_micros
    return _eight_bytes(micros - _MICROS_OF_2000)


_ascii: Final[Write] = methodcaller("encode", "ascii")

_WRITERS: Final[Mapping[str, tuple[Write, int]]] = {
    "VARCHAR": (_ascii, _AS_KEPT),  # as a text it would end at a NUL; so the server refuses that
    "JSONB": (_ascii, _AS_TEXT),
    "INTEGER": (methodcaller("to_bytes", 4, "big", signed=True), _AS_KEPT),
    "BIGINT": (methodcaller("to_bytes", 8, "big", signed=True), _AS_KEPT),
    "TIMESTAMP WITH TIME ZONE": (_time, _AS_KEPT),
}
_CAST: Final = re.compile(rf"%\((\w+)\)s(?:::({'|'.join(_WRITERS)})(?![\w[(]))?")
_PROCESSED: Final = "TIMESTAMP WITH TIME ZONE"
"""Whose processing makes what the driver takes, which is not needed here."""


class Writing(NamedTuple):
    """How the values of a statement are written."""

    writers: list[tuple[str, Write]]
    """The parameters' names, by their numbers, and what writes each."""
    formats: Sequence[int]
    """Of each, whether it is as text or as the server keeps it."""


def writing(text: str, names: Sequence[str], processed: Sequence[str]) -> Writing | None:
    """How to write the values of the parameters `%(name)s::TYPE` of this text, in the order of `names`; None where the
    driver must. `processed` are those whose values are not written as they are given."""
    casts: dict[str, set[str]] = {}
    for name, cast in _CAST.findall(text):
        casts.setdefault(name, set()).add(cast)
    found = []
    for name in names:
        cast = casts[name].pop() if len(casts[name]) == 1 else ""
        if cast not in _WRITERS or (name in processed and cast != _PROCESSED):
            return None
        found.append((name, *_WRITERS[cast]))
    return Writing([(name, write) for name, write, _ in found], [how for _, _, how in found])
