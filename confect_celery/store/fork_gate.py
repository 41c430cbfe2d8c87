"""Keeping SQLite out of forks.

SQLite remembers in the process's memory which locks its connections hold. A fork copies that memory but not the locks,
so a child of Celery's prefork pool would believe in locks that nobody holds, and miss those that it needs. Hence no
connection may be open at the moment of a fork, not even an idle one.
"""

from __future__ import annotations

import logging
import os
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

__all__ = ["ForkGate"]

logger = logging.getLogger(__name__)

_LONGEST_WAIT_SECONDS: Final = 30.0


class ForkGate:
    """A fork waits until every other thread has left the gate, then calls `close`; who comes meanwhile waits."""

    def __init__(self, close: Callable[[], None]) -> None:
        self._close = close
        self._condition = threading.Condition()
        self._inside: dict[int, int] = {}
        self._forking = False
        _gates.add(self)

    @contextmanager
    def inside(self) -> Iterator[None]:
        """Use connections inside this block; a thread may enter again while it is inside."""
        me = threading.get_ident()
        with self._condition:
            if me not in self._inside:
                self._condition.wait_for(lambda: not self._forking)
            self._inside[me] = self._inside.get(me, 0) + 1
        try:
            yield
        finally:
            with self._condition:
                self._inside[me] -= 1
                if not self._inside[me]:
                    del self._inside[me]
                self._condition.notify_all()

    def before(self) -> None:
        """About to fork, on this thread."""
        me = threading.get_ident()
        with self._condition:
            self._forking = True
            alone = self._condition.wait_for(lambda: self._inside.keys() <= {me}, _LONGEST_WAIT_SECONDS)
        if not alone or self._inside:
            logger.warning("A process is forked while it uses SQLite: the child may find the database locked.")
        self._close()

    def after_in_parent(self) -> None:
        """Forked, this is the parent."""
        with self._condition:
            self._forking = False
            self._condition.notify_all()

    def after_in_child(self) -> None:
        """Forked, this is the child: its only thread is the one that forked."""
        me = threading.get_ident()
        self._condition = threading.Condition()
        self._inside = {thread: depth for thread, depth in self._inside.items() if thread == me}
        self._forking = False


_gates: weakref.WeakSet[ForkGate] = weakref.WeakSet()


def _each(method: Callable[[ForkGate], None]) -> Callable[[], None]:
    def call() -> None:
        for gate in list(_gates):
            method(gate)

    return call


os.register_at_fork(
    before=_each(ForkGate.before),
    after_in_parent=_each(ForkGate.after_in_parent),
    after_in_child=_each(ForkGate.after_in_child),
)
