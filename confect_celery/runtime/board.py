"""Which row of its batch each child of a prefork pool runs at the moment: memory that parent and children share.

A child that dies, or that a time limit ends, cannot tell any more. Its parent reads it here.
"""

from __future__ import annotations

import functools
import hashlib
import mmap
import os
import struct
from typing import Final, NamedTuple

from billiard import current_process

__all__ = ["At", "Board"]

_SLOT: Final = struct.Struct("<qQq????")
_SLOTS: Final = 4096


class At(NamedTuple):
    """Where in its batch a child was last.

    `waits`: the end of the row before was not recorded yet. `held`: the child had held the row, which moved its attempt
    on; `held_before`: so it had the row before. `early`: the row's time has not come, it surely has not begun.
    """

    position: int
    waits: bool
    held: bool
    held_before: bool
    early: bool


class Board:
    """One slot a child. Make it before the pool forks; in other pools nobody writes to it."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, _SLOT.size * _SLOTS)
        self._owner = os.getpid()

    def note(self, batch: str, at: At) -> None:
        """In a child: of this batch it now runs this row."""
        pid = os.getpid()
        index = getattr(current_process(), "index", None)
        if pid != self._owner and isinstance(index, int) and 0 <= index < _SLOTS:
            _SLOT.pack_into(self._memory, index * _SLOT.size, pid, _token(batch), *at)

    def at(self, pid: int | None, batch: str) -> At | None:
        """In the parent: where in this batch the child `pid` was last; None when it never told."""
        for start in range(0, len(self._memory), _SLOT.size) if pid else ():
            owner, token, *at = _SLOT.unpack_from(self._memory, start)
            if owner == pid:
                return At(*at) if token == _token(batch) else None
        return None


@functools.lru_cache(maxsize=16)
def _token(batch: str) -> int:
    return int.from_bytes(hashlib.blake2b(batch.encode(errors="replace"), digest_size=8).digest(), "big")
