"""Plain Celery tasks that were scheduled through us: their row is claimed before they start and ended after.

Celery has no veto in its signals, so the claim stands in `before_start`, wrapped around the task's own.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from celery import Task, signals, states
from celery.exceptions import Ignore

from confect_celery.functions import failure
from confect_celery.runtime.parts import Parts
from confect_celery.runtime.task import ConfectTask, attempt_of
from confect_celery.store import OwnTransaction
from confect_celery.timing import DateTime, Duration

__all__ = ["PlainTasks"]

logger = logging.getLogger(__name__)

_CLAIMED = "confect_claimed_attempt"
_WRAPPED = "_confect_before_start"


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
        signals.task_retry.connect(self._retried, weak=False)

    def _wrap(self, cls: type[Task[Any, Any]]) -> None:
        if _WRAPPED in vars(cls):
            return
        original = cls.before_start
        claim = self._claim

        def before_start(task: Task[Any, Any], task_id: str, args: Any, kwargs: Any) -> None:
            claim(task, task_id)
            original(task, task_id, args, kwargs)

        setattr(cls, "before_start", before_start)  # noqa: B010
        if cls.Request == Task.Request:
            cls.Request = ConfectTask.Request  # tells of the ends that only the main process sees
        setattr(cls, _WRAPPED, original)

    def _claim(self, task: Task[Any, Any], id: str) -> None:
        attempt = attempt_of(task.request)
        if attempt < 0:
            return  # a message that no row stands behind: none of our business
        lease_until = self._parts.clock.now() + self._parts.settings.redelivery
        if not self._apply(lambda t: self._parts.store.rows.start(t.connection, id, attempt, lease_until)):
            logger.info("Dropped a message of %s[%s]: its row is not pending at attempt %d.", task.name, id, attempt)
            raise Ignore("no claim")
        setattr(task.request, _CLAIMED, attempt + 1)

    def _ended(self, task_id: str, task: Any, retval: Any = None, state: str | None = None, **_: Any) -> None:
        attempt = getattr(task.request, _CLAIMED, None)
        if attempt is None or state == states.RETRY:
            return
        rows, now = self._parts.store.rows, self._parts.clock.now()
        if state == states.FAILURE:
            described = failure.describe(retval if isinstance(retval, BaseException) else RuntimeError(repr(retval)))
            self._apply(lambda t: rows.fail_running(t.connection, task_id, attempt, now, described))
        elif state in (states.SUCCESS, states.IGNORED):  # any other end is the main process's to tell, or the sweep's
            self._apply(lambda t: rows.succeed_running(t.connection, task_id, attempt, now))

    def _retried(self, request: Any = None, reason: Any = None, **_: Any) -> None:
        attempt = getattr(request, _CLAIMED, None)
        if attempt is None:
            return
        # Celery has published the retry by itself: it counts as lost when it has not come by then.
        lost_at = _when(reason, self._parts.clock.now()) + self._parts.settings.redelivery
        self._apply(lambda t: self._parts.store.rows.retry(t.connection, request.id, attempt, lost_at))

    def _apply(self, work: Callable[[OwnTransaction], bool]) -> bool:
        return self._parts.store.database.retrying(work)


def _when(reason: Any, now: DateTime) -> DateTime:
    when = getattr(reason, "when", None)
    if isinstance(when, (int, float)):
        return now + Duration.seconds(when)
    return now if when is None else max(now, DateTime.of(when))
