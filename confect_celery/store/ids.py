"""Ids of rows: UUIDv7 (RFC 9562), so that they grow with the time of their creation."""

from __future__ import annotations

import secrets
import threading
import uuid

from confect_celery.store.row import ScheduledFunctionId
from confect_celery.timing import DateTime

__all__ = ["first_id_at", "new_id"]

_lock = threading.Lock()
_last = 0


def new_id(now: DateTime) -> ScheduledFunctionId:
    """A new id, created at `now`. Of one process's ids at the same instant a later one is greater.

    Not the standard library's `uuid7`: it came with Python 3.14, and it cannot be told the time.
    """
    global _last
    millis, micros = divmod(now.epoch_micros, 1000)
    # The 12 bits after the version tell the fraction of the millisecond; the first of the random bits stays 0 as room.
    number = millis << 80 | 0x7 << 76 | (micros * 4096 // 1000) << 64 | 0b10 << 62 | secrets.randbits(61)
    with _lock:
        if number >> 64 == _last >> 64 and number <= _last:
            # A random step: a forked child goes on from the same last id as its parent.
            number = _last + 1 + secrets.randbits(32)
        _last = number
    return ScheduledFunctionId(str(uuid.UUID(int=number)))


def first_id_at(when: DateTime) -> str:
    """The smallest text that an id created at `when` or later can be: to compare with, not to use as an id."""
    return str(uuid.UUID(int=max(when.epoch_millis, 0) << 80))
