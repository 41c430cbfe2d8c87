"""Revoke is durable: whoever asks Celery to revoke or terminate an id has its row canceled.

Celery's own revoke is a broadcast that workers keep in memory, up to 50,000 ids, until they restart. Here a process
that has the table cancels the row itself, before the broadcast, so that no worker need be up; and each worker that
hears the broadcast, from Flower for example, cancels the row as well.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, cast

from billiard.common import TERM_SIGNAME
from celery import Celery
from celery.app.control import Control
from celery.platforms import signals as _signals
from celery.utils.imports import symbol_by_name
from celery.worker import state as worker_state
from celery.worker.control import Panel as CeleryPanel

from confect_celery.runtime.batch_task import BatchRequest

__all__ = ["DurableControl", "Panel", "install_control"]

_LONGEST_ID: Final = 36
_CELERYS_OWN: Final = "celery.app.control:Control"


def row_ids(given: Any) -> list[str]:
    """Of one id or a list of ids, those that may be a row's: what came with a message may be anything."""
    many = given if isinstance(given, (list, tuple, set, frozenset)) else [given]
    return [id for id in many if isinstance(id, str) and 0 < len(id) <= _LONGEST_ID and id.isprintable()]


class _CancelsRows:
    app: Any

    def revoke(self, task_id: Any, *args: Any, **kwargs: Any) -> Any:
        """As `Control.revoke`; of ids that are rows, these are canceled first.

        When the database does not answer, the workers are told all the same, and the error is raised.
        """
        try:
            _cancel(self.app.confect, row_ids(task_id))
        finally:
            reply = super().revoke(task_id, *args, **kwargs)  # type: ignore[misc]
        return reply


class DurableControl(_CancelsRows, Control):
    """`app.control` of an app with a Confect."""


def install_control(app: Celery) -> None:
    """Have `app.control`, and so `AsyncResult.revoke()`, cancel rows."""
    chosen = cast("Any", app.control_cls)  # the stubs take it for a text alone
    own = chosen == _CELERYS_OWN or chosen is Control
    durable: Any = DurableControl if own else type("DurableControl", (_CancelsRows, symbol_by_name(chosen)), {})  # pyright: ignore
    app.control_cls = durable
    app.__dict__.pop("control", None)  # one that was made already


def _cancel(confect: Any, ids: Sequence[str]) -> None:
    if not ids:
        return
    scheduler = confect.scheduling()
    for id in scheduler.live(ids):
        scheduler.cancel(id)


class Panel:
    """The worker's remote control commands, with those replaced that concern us: what Celery does, it does as well."""

    def __init__(self, revoked: Callable[[Sequence[str]], object], awaited: Callable[[], object]) -> None:
        """`revoked` is told the ids that somebody revokes; `awaited`, that a monitor has begun to listen."""
        self._before: dict[str, Any] = {}
        self._revoked = revoked
        self._awaited = awaited

    def install(self) -> None:
        """Replace the commands, until `remove()`."""
        for name, command in self._commands():
            self._before[name] = CeleryPanel.data[name]
            CeleryPanel.data[name] = functools.wraps(self._before[name])(command)

    def remove(self) -> None:
        """Put Celery's own back."""
        CeleryPanel.data.update(self._before)
        self._before.clear()

    def _commands(self) -> Iterator[tuple[str, Callable[..., Any]]]:
        data = CeleryPanel.data
        yield "revoke", functools.partial(self._revoke, data["revoke"])
        yield "terminate", functools.partial(self._terminate, data["terminate"])
        yield "heartbeat", functools.partial(self._heartbeat, data["heartbeat"])

    def _revoke(self, celerys: Callable[..., Any], state: Any, *args: Any, **kwargs: Any) -> Any:
        # Before Celery's: that asks the result backend, which may be slow or away, and may end the process.
        ids = row_ids(kwargs.get("task_id"))
        if ids:
            self._revoked(ids)
        if kwargs.get("terminate"):
            self._end_in_batches(state, ids, kwargs.get("signal"))
        return celerys(state, *args, **kwargs)

    def _terminate(self, celerys: Callable[..., Any], state: Any, *args: Any, **kwargs: Any) -> Any:
        return self._revoke(celerys, state, *args, **{**kwargs, "terminate": True})

    def _end_in_batches(self, state: Any, ids: Sequence[str], signal: Any) -> None:
        # Celery looks for the id of a request, and a row that runs in a batch has none.
        for request in list(worker_state.active_requests):
            if isinstance(request, BatchRequest) and request.running in ids:
                state.consumer.pool.terminate_job(request.worker_pid, _signals.signum(signal or TERM_SIGNAME))

    def _heartbeat(self, celerys: Callable[..., Any], state: Any, *args: Any, **kwargs: Any) -> Any:
        # What an event receiver broadcasts when it starts to listen: Flower at its start, `celery events`.
        self._awaited()
        return celerys(state, *args, **kwargs)
