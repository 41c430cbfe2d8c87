"""Ids of rows: UUIDv7 (RFC 9562), so that they grow with the time of their creation."""

from __future__ import annotations

import os
import secrets
import struct
import threading
import uuid
from collections.abc import Iterator
from itertools import accumulate, chain, repeat
from typing import Final

from confect_celery.store.row import ScheduledFunctionId
from confect_celery.timing import DateTime

__all__ = ["first_id_at", "new_id", "new_ids"]

_AHEAD: Final = struct.Struct(">512Q")
_LOWER_HALF: Final = 2**64 - 1
_NODE: Final = 2**48 - 1

_lock = threading.Lock()
_last = 0


def _numbers() -> Iterator[int]:
    """Random numbers of 64 bits. The system is asked for many at once: each call of it costs more than all the rest of
    an id. No generator: that would be another call of a function for each."""
    return chain.from_iterable(map(_AHEAD.unpack, map(secrets.token_bytes, repeat(_AHEAD.size))))


_random = _numbers()


def _forget() -> None:
    global _random, _lock
    _random, _lock = _numbers(), threading.Lock()


os.register_at_fork(after_in_child=_forget)


def new_id(now: DateTime) -> ScheduledFunctionId:
    """A new id, created at `now`. Of one process's ids at the same instant a later one is greater.

    Not the standard library's `uuid7`: it came with Python 3.14, and it cannot be told the time.
    """
    global _last
    with _lock:
        number = _last = _next(now)
    text = f"{number:032x}"
    return ScheduledFunctionId(f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}")


def new_ids(now: DateTime, count: int) -> list[ScheduledFunctionId]:
    """So many new ids, as `new_id` makes them, each greater than the one before."""
    global _last
    if count < 2:
        return [new_id(now) for _ in range(count)]
    with _lock:
        number = _next(now)
        steps = struct.unpack(f">{count - 1}I", secrets.token_bytes(4 * (count - 1)))
        # What they add up to stays within the room: all of them are of one instant, and so share the upper half.
        lows = list(accumulate(steps, _step, initial=number & _LOWER_HALF))
        _last = number >> 64 << 64 | lows[-1]
    upper = f"{number >> 64:016x}"
    head = f"{upper[:8]}-{upper[8:12]}-{upper[12:]}"
    return [ScheduledFunctionId(f"{head}-{low >> 48:04x}-{low & _NODE:012x}") for low in lows]


def _next(now: DateTime) -> int:
    millis, micros = divmod(now.epoch_micros, 1000)
    # The 12 bits after the version tell the fraction of the millisecond; the first of the random bits stays 0 as room.
    instant = millis << 80 | 0x7 << 76 | (micros * 4096 // 1000) << 64 | 0b10 << 62
    number = instant | next(_random) >> 3
    if number >> 64 == _last >> 64 and number <= _last:
        # A random step: a forked child goes on from the same last id as its parent.
        number = _last + 1 + (next(_random) >> 32)
    return number


def _step(low: int, random: int) -> int:
    return low + 1 + random


def first_id_at(when: DateTime) -> str:
    """The smallest text that an id created at `when` or later can be: to compare with, not to use as an id."""
    return str(uuid.UUID(int=max(when.epoch_millis, 0) << 80))
