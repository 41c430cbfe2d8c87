"""Mutations of a batch that follow each other share a transaction, where each is brief: one commit for all of them.

Each runs inside the one before it, as a task does that another calls, and comes to its end only after the commit: what
Celery, its signals and its monitors hear of a success is true. What cannot go along is run again by itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from itertools import islice, takewhile
from typing import Final

from confect_celery.settings import Settings
from confect_celery.store import Part, Pending, SharedTransaction, Store
from confect_celery.timing import Clock

__all__ = ["Sharing"]

_MOST: Final = 17
"""Each runs inside the one before: Python's stack is finite. A third of the fullest batch by default."""

_LONGEST_SECONDS: Final = 0.02
"""After so long nobody joins any more: what has been done waits for the commit."""


class Sharing:
    """The shared transactions of one batch, one after the other."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        settings: Settings,
        following: Callable[[], Iterator[Pending]],
        run_next: Callable[[], None],
    ) -> None:
        """`following()` gives the rows after the one that runs, as long as they are mutations that may share a
        transaction now; `run_next()` runs the first of them."""
        self._store = store
        self._clock = clock
        self._settings = settings
        self._following = following
        self._run_next = run_next
        self._shared: SharedTransaction | None = None
        self._began = 0.0
        self._attempt = 0

    @property
    def is_open(self) -> bool:
        """Whether a transaction is open, so that what runs now runs inside others."""
        return self._shared is not None

    def has_next(self) -> bool:
        """Whether it is worth while to begin one."""
        return next(self._following(), None) is not None

    def enter(self, row: Pending) -> Part | None:
        """The row's part of the transaction, begun for it where none is open; None where it must be run by itself."""
        if self._shared is None:
            relaxed = not self._settings.batch_waits_for_disk
            self._shared = SharedTransaction(self._store.database, self._store.rows, relaxed=relaxed)
            self._began, self._attempt = time.monotonic(), row.attempt
            alike = takewhile(lambda each: each.attempt == row.attempt, self._following())
            part = self._shared.enter(row, list(islice(alike, _MOST - 1)))
        else:
            part = self._shared.enter(row)
        self._look()
        if self._shared is not None and not self._shared.parts:
            self.settle()
        return part

    def stands(self, part: Part, error: Exception | None) -> bool:
        """After the part's mutation has run, and raised `error` or not: whether that is its end. If not, it is undone,
        to be run again by itself, and what others have done is committed before that."""
        stands = self._shared is not None and self._shared.stands(part, error)
        # So deep in the stack it is only because others run around it; and what is transient is tried again.
        if isinstance(error, RecursionError) or (error and self._store.database.dialect.is_transient(error)):
            stands = False
        self._look()
        if not stands:
            self.settle()
        return stands

    def go_on(self) -> None:
        """Run the rows that follow, inside, as long as they may join; the last of them to come here commits."""
        while self._has_room() and (row := next(self._following(), None)) and row.attempt == self._attempt:
            try:
                self._run_next()
            except BaseException as error:  # of the machinery: what a function raises ends in its row
                self.abandon(error)
                raise
        self.settle()

    def settle(self) -> None:
        """Commit what is open."""
        shared, self._shared = self._shared, None
        if shared is not None:
            shared.commit(self._clock.now())

    def abandon(self, error: BaseException) -> None:
        """The child ends in the midst of a mutation: roll back what is open."""
        shared, self._shared = self._shared, None
        if shared is not None:
            shared.abandon(error)

    def _has_room(self) -> bool:
        shared = self._shared
        if shared is None or shared.entered >= _MOST:
            return False
        return time.monotonic() - self._began < _LONGEST_SECONDS

    def _look(self) -> None:
        if self._shared is not None and self._shared.is_over:
            self._shared = None
