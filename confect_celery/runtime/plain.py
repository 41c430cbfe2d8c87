"""Plain Celery tasks that have a row: it is claimed before they start and ended after.

Celery has no veto in its signals, so the claim stands in `before_start`, wrapped around the task's own. Their retries
and replacements go through `capture.Capture`, which stands where Celery publishes.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from celery import Task, signals, states
from celery.exceptions import Ignore

from confect_celery.functions import failure
from confect_celery.runtime.claims import Claims
from confect_celery.runtime.messages import loaded_row, task_name
from confect_celery.runtime.parts import Parts
from confect_celery.runtime.punctual import wait_until
from confect_celery.runtime.relay import claims_of
from confect_celery.runtime.task import ConfectTask, attempt_of, tell_revoked, telling
from confect_celery.store import OwnTransaction, Pending, StateKind
from confect_celery.timing import DateTime, Duration
from confect_celery.tracing import Run

__all__ = ["CANCELED", "PlainTasks", "claim_of"]

T = TypeVar("T")

_CLAIM: Final = "confect_claim"
"""Set on the request of a task that runs in its row's name."""

CANCELED: Final = "confect_canceled"
"""Set on the request of a task that would retry, but whose row was canceled meanwhile."""

_WHY_NOT: Final = {None: "missing", StateKind.CANCELED: "canceled", StateKind.IN_PROGRESS: "running",
                   StateKind.SUCCESS: "finished", StateKind.FAILED: "finished"}  # fmt: skip

_WRAPPED: Final = "_confect_before_start"
_TRIES: Final = 10
_GIVEN_BACK_FOR: Final = Duration.seconds(1)
"""How long a message rests that its task rejected to be delivered again."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A row that a task has claimed: `attempt` is what the claim made of the row's, `began` by the monotonic clock."""

    row: Pending
    began: float
    span: Run

    @property
    def attempt(self) -> int:
        return self.row.attempt + 1


def claim_of(request: Any) -> Claim | None:
    """The claim of the task that runs with this request.

    Celery makes each header of a message an attribute of its request: only an object of ours is a claim.
    """
    claim = getattr(request, _CLAIM, None)
    return claim if isinstance(claim, Claim) else None


class PlainTasks:
    """Claims and ends the rows of plain tasks, in whichever process the pool runs them."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def install(self) -> None:
        """Wrap every task that is registered; call it before the pool starts."""
        for task in self._parts.app.tasks.values():
            if not isinstance(task, ConfectTask):
                self._wrap(type(task))
        signals.task_postrun.connect(self._ended, weak=False)

    def _wrap(self, cls: type[Task[Any, Any]]) -> None:
        if _WRAPPED in vars(cls):
            return
        original = cls.before_start
        claim = self._claim

        def before_start(task: Task[Any, Any], task_id: str, args: Any, kwargs: Any) -> None:
            claim(task, task_id)
            original(task, task_id, args, kwargs)

        setattr(cls, "before_start", before_start)  # noqa: B010
        cls.Request = telling(cls.Request)
        setattr(cls, _WRAPPED, original)

    def _claim(self, task: Task[Any, Any], id: str) -> None:
        attempt = attempt_of(task.request)
        if attempt < 0 or claim_of(task.request) is not None:
            return  # a message that no row stands behind; or a wrapped class that inherits from a wrapped class
        rows, database = self._parts.store.rows, self._parts.store.database
        row, now = loaded_row(task.request), self._parts.clock.now()
        if row is None:
            started = self._claims(task).start_due(id, attempt, task.name)
            if started is not None:
                self._began(started, task, now)
                return
            row = database.reading(lambda connection: rows.load(connection, id, attempt), tries=_TRIES)
        refused = self._refused(row, task.name)
        if row is None or refused or not self._start(row, task):
            state = database.reading(lambda connection: rows.state(connection, id), tries=_TRIES)
            self._parts.store.events.dropped(id, task.name, attempt, refused or _WHY_NOT.get(state, "superseded"))
            if state is StateKind.CANCELED:
                tell_revoked(task)
            raise Ignore("no claim")

    def _refused(self, row: Pending | None, name: str) -> str | None:
        # The row is trusted, the message is not: it may come from anybody who can write to the broker.
        if row is None:
            return None
        if task_name(row.name, row.options) != name:
            return "misnamed"
        due = wait_until(row.scheduled_time, self._parts.clock, self._parts.settings.horizon)
        return None if due else "early"

    def _start(self, row: Pending, task: Task[Any, Any]) -> bool:
        now = self._parts.clock.now()
        if not self._claims(task).start(row):
            return False
        self._began(row, task, now)
        return True

    def _began(self, row: Pending, task: Task[Any, Any], now: DateTime) -> None:
        span = Run(task.name, row.id, row.attempt, row.options)
        setattr(task.request, _CLAIM, Claim(row, time.monotonic(), span))
        first = not row.options.get("retries")
        self._parts.store.events.claimed(row, row.due, now, row.options.get("queue"), first=first)

    def _ended(self, task_id: str, task: Any, retval: Any = None, state: str | None = None, **_: Any) -> None:
        claim = claim_of(task.request)
        if claim is None:
            return
        attempt = claim.attempt
        self._parts.brevity.ran(task.name, time.monotonic() - claim.began)
        claim.span.end(retval if isinstance(retval, BaseException) else None)
        rows, now = self._parts.store.rows, self._parts.clock.now()
        requeue = state == states.REJECTED and getattr(retval, "requeue", False)
        if state == states.RETRY:  # the row was told before the retry's message was published
            if getattr(task.request, CANCELED, False):
                tell_revoked(task)
        elif requeue:  # Celery's message comes back with the old attempt and starts nothing
            self._apply(lambda t: rows.requeue(t.connection, task_id, attempt, now + _GIVEN_BACK_FOR, lost=False))
            self._parts.store.events.retried(task_id, task.name, "rejected")
        elif state in (states.FAILURE, states.REJECTED):
            described = failure.describe(retval if isinstance(retval, BaseException) else RuntimeError(repr(retval)))
            if self._apply(lambda t: rows.fail_running(t.connection, task_id, attempt, now, described)):
                self._told(claim, "failed", described["tag"])
        elif state in (states.SUCCESS, states.IGNORED):  # any other end is the main process's to tell, or the sweep's
            self._claims(task).succeed(claim.row, lambda: self._told(claim, "success"))

    def _told(self, claim: Claim, state: str, tag: str | None = None) -> None:
        self._parts.store.events.finished(claim.row, state, time.monotonic() - claim.began, tag)

    def _claims(self, task: Any) -> Claims:
        parts = self._parts
        return claims_of(task.request) or Claims(parts.store, parts.clock, parts.settings)

    def _apply(self, work: Callable[[OwnTransaction], T]) -> T:
        return self._parts.store.database.retrying(work, single=True, tries=_TRIES)
