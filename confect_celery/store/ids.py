"""Ids of rows: UUIDv7 (RFC 9562), so that they grow with the time of their creation."""

from __future__ import annotations

import secrets
import uuid

from confect_celery.store.row import ScheduledFunctionId
from confect_celery.timing import DateTime

__all__ = ["first_id_at", "new_id"]


def new_id(now: DateTime) -> ScheduledFunctionId:
    """A new id, created at `now`.

    Not the standard library's `uuid7`: it came with Python 3.14, and it cannot be told the time.
    """
    random = secrets.randbits(74)
    number = now.epoch_millis << 80 | 0x7 << 76 | (random >> 62) << 64 | 0b10 << 62 | random & ((1 << 62) - 1)
    return ScheduledFunctionId(str(uuid.UUID(int=number)))


def first_id_at(when: DateTime) -> str:
    """The smallest text that an id created at `when` or later can be: to compare with, not to use as an id."""
    return str(uuid.UUID(int=max(when.epoch_millis, 0) << 80))
