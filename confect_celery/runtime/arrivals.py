"""Which messages of one row may go to a child together: those that a dispatcher could have put into one.

What hangs on a call, what it asks of the worker's main process, and that it is for a time to come, only a message can
tell that goes alone. Whoever can write to the broker can write anything: what is not as ours are goes alone, too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from celery import Task, signals
from celery.utils.imports import symbol_by_name
from celery.worker import state as worker_state

from confect_celery.runtime.batches import Entry
from confect_celery.runtime.messages import ATTEMPT_HEADER
from confect_celery.runtime.task import ConfectRequest, ConfectTask, attempt_of, past_eta

__all__ = ["Arrival", "Reader", "may_share"]

_SOLE: Final = '{"callbacks": null, "errbacks": null, "chain": null, "chord": null}]'
"""What the body of a call ends with on which nothing hangs."""

_UNUSUAL: Final = ("chord", "expires", "group", "replaced_task_nesting", "retries", "shadow", "stamped_headers")
_USUAL: Final = frozenset(
    {
        *("argsrepr", "eta", "group_index", "id", "ignore_result", "kwargsrepr", "lang", "origin", "parent_id"),
        *("root_id", "stamps", "task", "timelimit", ATTEMPT_HEADER, *_UNUSUAL),
    }
)
"""The headers of a call. What else a plain task's message has, whoever published it may have put there since its row
was written: tracing does so in `before_task_publish`."""

_STRATEGY: Final = "celery.worker.strategy:default"


@dataclass(frozen=True, slots=True, eq=False)
class Arrival:
    """A message that may share a child with others that came the same `way`."""

    handle: Callable[..., Any]
    """Celery's own handler."""
    given: tuple[Any, ...]
    """What the handler takes: the message, None, how it is acknowledged, how it is rejected, and callbacks."""
    entry: Entry
    """The row that it names."""
    limit: float
    """How many seconds that may run; 0 for as long as it likes."""

    @property
    def message(self) -> Any:
        """The message."""
        return self.given[0]

    @property
    def is_revoked(self) -> bool:
        """Whether Celery itself will see that it does not start."""
        return self.entry.id in worker_state.revoked

    @property
    def way(self) -> tuple[object, ...]:
        """What those that go together have in common."""
        info = self.message.delivery_info
        return self.limit, info.get("exchange"), info.get("routing_key"), info.get("priority")


def may_share(task: Task[Any, Any]) -> bool:
    """Whether messages of this task may: all that is done with them here is known here."""
    if task.acks_late or task.soft_time_limit or task.Strategy != _STRATEGY:
        return False
    return symbol_by_name(task.Request) is ConfectRequest


class Reader:
    """Reads the messages of one task."""

    def __init__(self, task: Task[Any, Any], handle: Callable[..., Any], limit: float | None) -> None:
        """`limit` is the hard limit of a message that has none itself."""
        self._name: str = task.name
        self._is_plain = not isinstance(task, ConfectTask)
        self._handle = handle
        self._own_limit = limit

    def read(self, given: tuple[Any, ...]) -> Arrival | None:
        """The message, with all that its handler was given; None where it must go alone."""
        message, payload = given[:2]
        headers = message.headers
        if payload is not None or signals.task_received.receivers or not isinstance(message.delivery_info, dict):
            return None
        if self._is_plain and not headers.keys() <= _USUAL:
            return None
        if any(headers.get(name) for name in _UNUSUAL) or not isinstance(headers.get("id"), str):
            return None
        if not _is_sole(message.body):
            return None
        if headers.get("eta") is not None and past_eta(headers) is None:
            return None
        attempt, limit = attempt_of(headers), self._limit(headers.get("timelimit"))
        if attempt < 0 or limit is None:
            return None
        arrival = Arrival(self._handle, given, Entry(headers["id"], attempt, self._name), limit)
        return None if arrival.is_revoked else arrival

    def _limit(self, given: Any) -> float | None:
        """None where there is a soft one, or it cannot be read."""
        if not isinstance(given, (list, tuple)) or len(given) != 2 or given[1] is not None:
            return None
        limit = given[0] or self._own_limit or 0.0
        return limit if isinstance(limit, (int, float)) else None


def _is_sole(body: object) -> bool:
    if not isinstance(body, (bytes, str)):
        return False
    end = body[-len(_SOLE) :]
    return (end if isinstance(end, str) else end.decode(errors="replace")) == _SOLE
