"""A batch in a worker, as Celery sees it: a task, and a request that knows which of its rows the child is at."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import celery
from billiard.exceptions import Terminated, WorkerLostError
from celery.worker.request import Request

from confect_celery.runtime.batch_run import TELLS_EVENTS, BatchRun
from confect_celery.runtime.batches import BATCH_TASK, LONGEST_SECONDS, Entry, entries_of
from confect_celery.runtime.board import At, Board
from confect_celery.runtime.parts import Parts
from confect_celery.runtime.transport import CeleryTransport

if TYPE_CHECKING:
    from confect_celery.runtime.reconciler import Reconciler

__all__ = ["BatchRequest", "BatchTask", "make_batch_task"]


class BatchRequest(Request):  # pyright: ignore[reportIncompatibleMethodOverride]  # Celery's are properties
    """A batch in the worker's main process: tells the reconciler which row an untimely end was of."""

    def __init__(self, message: Any, *args: Any, **kwargs: Any) -> None:
        """As Celery makes it."""
        super().__init__(message, *args, **kwargs)
        eventer = kwargs.get("eventer")
        # Without -E it is enabled all the same, for what it tells of the worker itself.
        self.request_dict[TELLS_EVENTS] = bool(
            eventer and eventer.enabled and (not eventer.groups or "task" in eventer.groups)
        )

    @property
    def entries(self) -> list[Entry]:
        """The rows."""
        return entries_of(self.request_dict)

    @property
    def at(self) -> At | None:
        """Where the child is; None where it cannot be known."""
        pid: Any = self.worker_pid  # the stubs take it for a text
        return BatchTask.board.at(pid, self.id) if BatchTask.board is not None else None

    @property
    def running(self) -> str | None:
        """The id of the row that the child is at."""
        at, entries = self.at, self.entries
        return entries[at.position].id if at is not None and at.position < len(entries) else None

    def on_timeout(self, soft: bool, timeout: float) -> None:
        """The hard limit killed the child in the midst of a row."""
        super().on_timeout(soft, timeout)
        if not soft:
            self._ended_at(lambda to, id, attempt, _: to.timed_out(id, attempt, timeout - LONGEST_SECONDS))

    def on_failure(self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False) -> None:
        """The child died."""
        super().on_failure(exc_info, send_failed_event=send_failed_event, return_ok=return_ok)
        error = getattr(exc_info.exception, "exc", exc_info.exception)
        if isinstance(error, (WorkerLostError, Terminated, SystemExit, KeyboardInterrupt)):
            self._ended_at(lambda to, id, attempt, held: to.worker_lost(id, attempt, str(error), held=held))
        elif BatchTask.reconciler is not None and (at := self.at) is not None:
            # It could not reach the database, to give back what it held.
            held = [(entry.id, entry.attempt + 1) for entry in self.entries[at.position + 1 :]]
            BatchTask.reconciler.not_begun([], alone=False, held=held)

    def _ended_at(self, tell: Callable[[Reconciler, str, int, bool], None]) -> None:
        reconciler, entries, at = BatchTask.reconciler, self.entries, self.at
        if reconciler is None:
            return
        after = entries
        if at is not None and at.position < len(entries):
            if at.waits:
                before = entries[at.position - 1]
                reconciler.succeeded(before.id, before.attempt + at.held_before)
            after = entries[at.position + (not at.early) :]
            if not at.early:
                ended = entries[at.position]
                tell(reconciler, ended.id, ended.attempt + at.held, at.held)
                entries = [*entries[: at.position], *after]
        # What had not begun goes on at once, and so do mutations whose transaction the child took with it; of what had
        # ended there is no row pending at that attempt any more.
        reconciler.not_begun(
            [(entry.id, entry.attempt) for entry in entries],
            alone=at is None,
            held=[(entry.id, entry.attempt + 1) for entry in after] if at is not None else (),
        )


class BatchTask(celery.Task):  # type: ignore[type-arg]
    """Runs the rows that its message names. It has no events of its own: each row has."""

    Request = "confect_celery.runtime.batch_task:BatchRequest"
    name = BATCH_TASK
    abstract = True
    acks_late = False
    ignore_result = True
    send_events = False
    typing = False
    max_retries = 0
    time_limit = None
    reconciler: ClassVar[Reconciler | None] = None
    """The running worker's; None in every other process."""
    board: ClassVar[Board | None] = None
    parts: ClassVar[Parts]

    def run(self, *_args: Any, **_kwargs: Any) -> int:
        """Run them one after the other; how many were begun."""
        # Celery takes the outermost task for the one that a worker runs: what rows send is not this one's child.
        self.request.called_directly = True
        return BatchRun(self.parts, self.request, self.board, self._transport).run()

    @cached_property
    def _transport(self) -> CeleryTransport:
        # Kept, for it remembers what the requests of a function have in common.
        return CeleryTransport(self.parts.app, self.parts.settings)


def make_batch_task(parts: Parts) -> BatchTask:
    """The task for the app of `parts`."""
    made: BatchTask = type("AppBatchTask", (BatchTask,), {"parts": parts, "name": BATCH_TASK})()
    return made
