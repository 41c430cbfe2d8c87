"""Ids of rows: UUIDv7 (RFC 9562), so that they grow with the time of their creation."""

from __future__ import annotations

import os
import secrets
import threading
import uuid
from typing import Final

from confect_celery.store.row import ScheduledFunctionId
from confect_celery.timing import DateTime

__all__ = ["first_id_at", "new_id"]

_BYTES_AHEAD: Final = 4096

_lock = threading.Lock()
_last = 0
_random = b""
_used = 0


def _forget() -> None:
    global _random, _lock
    _random, _lock = b"", threading.Lock()


os.register_at_fork(after_in_child=_forget)


def new_id(now: DateTime) -> ScheduledFunctionId:
    """A new id, created at `now`. Of one process's ids at the same instant a later one is greater.

    Not the standard library's `uuid7`: it came with Python 3.14, and it cannot be told the time.
    """
    global _last
    millis, micros = divmod(now.epoch_micros, 1000)
    # The 12 bits after the version tell the fraction of the millisecond; the first of the random bits stays 0 as room.
    instant = millis << 80 | 0x7 << 76 | (micros * 4096 // 1000) << 64 | 0b10 << 62
    with _lock:
        number = instant | _random_bits() >> 3
        if number >> 64 == _last >> 64 and number <= _last:
            # A random step: a forked child goes on from the same last id as its parent.
            number = _last + 1 + (_random_bits() >> 32)
        _last = number
    text = f"{number:032x}"
    return ScheduledFunctionId(f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}")


def _random_bits() -> int:
    """64 random bits. The system is asked for many at once: each call of it costs more than all the rest of an id."""
    global _random, _used
    if _used >= len(_random):
        _random, _used = secrets.token_bytes(_BYTES_AHEAD), 0
    _used += 8
    return int.from_bytes(_random[_used - 8 : _used], "big")


def first_id_at(when: DateTime) -> str:
    """The smallest text that an id created at `when` or later can be: to compare with, not to use as an id."""
    return str(uuid.UUID(int=max(when.epoch_millis, 0) << 80))
