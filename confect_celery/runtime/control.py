"""What a worker answers when it is asked how Confect does in it: `celery -A shop inspect confect_status`."""

from __future__ import annotations

import os
from importlib.metadata import version
from typing import Any

from celery.worker.control import inspect_command

from confect_celery.runtime.worker_step import WorkerStep

__all__ = ["confect_status"]


@inspect_command()
def confect_status(state: Any, **_: Any) -> dict[str, Any]:
    """How the durable scheduler does in this worker.

    `last_poll` is how many seconds ago the dispatcher last looked at the table, `outbox` how many rows it has claimed
    that are not due yet; both None where this worker does not dispatch.
    """
    step = next((step for step in state.consumer.controller.steps if isinstance(step, WorkerStep)), None)
    if step is None:
        return {"pid": os.getpid(), "dispatcher": None}
    actors = step.actors
    dispatches = actors is not None and actors.dispatches
    return {
        "pid": os.getpid(),
        "version": version("confect-celery"),
        "dispatcher": step.parts.settings.dispatcher,
        "dispatches": dispatches,
        "outbox": len(actors.outbox) if actors is not None and dispatches else None,
        "last_poll": _rounded(actors.dispatcher.ticked_seconds_ago) if actors is not None and dispatches else None,
        "last_sweep": _rounded(actors.reconciler.ticked_seconds_ago) if actors is not None else None,
        "last_error": (actors.dispatcher.last_error or actors.reconciler.last_error) if actors is not None else None,
    }


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)
