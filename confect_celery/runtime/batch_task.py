"""A batch in a worker: each row runs as the task that it is, under its own id, as if it had come alone."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Final

import celery
from billiard.exceptions import Terminated, WorkerLostError
from celery import states
from celery.app import trace
from celery.utils.saferepr import saferepr
from celery.worker.request import Request

from confect_celery.runtime.announce import Announcer
from confect_celery.runtime.batches import BATCH_TASK, LONGEST_SECONDS, Entry, entries_of
from confect_celery.runtime.board import At, Board
from confect_celery.runtime.claims import CLAIMS, Relay
from confect_celery.runtime.dispatcher import Outbox
from confect_celery.runtime.messages import LOADED, task_name
from confect_celery.runtime.parts import Parts
from confect_celery.runtime.transport import CeleryTransport
from confect_celery.store import Delivery, Pending

if TYPE_CHECKING:
    from confect_celery.runtime.reconciler import Reconciler

__all__ = ["BatchRequest", "BatchTask", "make_batch_task"]

_EVENTS: Final = "confect_events"
"""Whether the worker sends task events: its main process knows, the child does not."""

_TRIES: Final = 10


class BatchRequest(Request):  # pyright: ignore[reportIncompatibleMethodOverride]  # Celery's are properties
    """A batch in the worker's main process: tells the reconciler which row an untimely end was of."""

    def __init__(self, message: Any, *args: Any, **kwargs: Any) -> None:
        """As Celery makes it."""
        super().__init__(message, *args, **kwargs)
        eventer = kwargs.get("eventer")
        # Without -E it is enabled all the same, for what it tells of the worker itself.
        self.request_dict[_EVENTS] = bool(
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
            self._ended_at(lambda to, entry: to.timed_out(entry.id, entry.attempt, timeout - LONGEST_SECONDS))

    def on_failure(self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False) -> None:
        """The child died."""
        super().on_failure(exc_info, send_failed_event=send_failed_event, return_ok=return_ok)
        error = getattr(exc_info.exception, "exc", exc_info.exception)
        if isinstance(error, (WorkerLostError, Terminated, SystemExit, KeyboardInterrupt)):
            self._ended_at(lambda to, entry: to.worker_lost(entry.id, entry.attempt, str(error)))

    def _ended_at(self, tell: Callable[[Reconciler, Entry], None]) -> None:
        reconciler, entries, at = BatchTask.reconciler, self.entries, self.at
        if reconciler is None:
            return
        if at is not None and at.position < len(entries):
            if at.waits:
                before = entries[at.position - 1]
                reconciler.succeeded(before.id, before.attempt)
            tell(reconciler, entries[at.position])
            entries = entries[at.position + 1 :]
        # What had not begun goes on at once; of what had ended there is no row pending at that attempt any more.
        reconciler.not_begun([(entry.id, entry.attempt) for entry in entries], alone=at is None)


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
        request = self.request
        # Celery takes the outermost task for the one that a worker runs: what rows send is not this one's child.
        request.called_directly = True
        parts, entries = self.parts, entries_of(vars(request))
        transport = CeleryTransport(parts.app, parts.settings)
        ids = [entry.id for entry in entries]
        database, rows = parts.store.database, parts.store.rows
        found = database.reading(lambda connection: rows.load_many(connection, ids), tries=_TRIES)
        began, at = time.monotonic(), 0

        def next_claims() -> bool:
            """Whether the row after the one that runs will be claimed in a moment, as it looks from here."""
            if at + 1 >= len(entries) or time.monotonic() - began > LONGEST_SECONDS:
                return False
            row = found.get(entries[at + 1].id)
            return row is not None and row.kind != "mutation" and row.scheduled_time <= parts.clock.now()

        relay = Relay(parts.store, parts.clock, parts.settings, next_claims)
        try:
            for at, entry in enumerate(entries):  # `next_claims` looks at it
                if at and time.monotonic() - began > LONGEST_SECONDS:
                    self._hand_on([row for each in entries[at:] if (row := found.get(each.id)) is not None])
                    return at
                if self.board is not None:
                    self.board.note(str(request.id), at, waits=relay.waits)
                self._run_row(transport, entry, found.get(entry.id), request, relay)
                relay.flush(but=entry.id)
        finally:
            relay.flush()
        return len(entries)

    def _run_row(self, transport: CeleryTransport, entry: Entry, row: Pending | None, batch: Any, relay: Relay) -> None:
        name = entry.name
        if row is None or row.attempt != entry.attempt or task_name(row.name, row.options) != name:
            reason = "superseded" if row is None or row.attempt != entry.attempt else "misnamed"
            self.parts.store.events.dropped(entry.id, name, entry.attempt, reason)
            return
        task = self.app.tasks.get(name)
        if task is None:  # a worker with other code may know it; and if none does, Celery tells
            self._hand_on([row])
            return
        delivery = _delivery(row)
        request = transport.request(delivery)
        request.update(
            {
                LOADED: row,
                CLAIMS: relay,
                "hostname": batch.hostname,
                "delivery_info": batch.delivery_info,
                "is_eager": False,
                "timelimit": [row.options.get("time_limit"), None],
            }
        )
        said = _Said(self.parts.announcer, batch.hostname, request) if getattr(batch, _EVENTS, False) else None
        if said:
            said.began()
        outcome = trace.trace_task(
            task, entry.id, request["args"], request["kwargs"], request, app=self.app, hostname=batch.hostname
        )
        if said:
            said.ended(outcome)

    def _hand_on(self, rows: list[Pending]) -> None:
        """Publish each in a message of its own: one that takes long must not hold up what came with it."""
        parts = self.parts
        outbox = Outbox(parts.store, CeleryTransport(parts.app, parts.settings), parts.clock)
        for row in rows:
            outbox.publish(_delivery(row))


def make_batch_task(parts: Parts) -> BatchTask:
    """The task for the app of `parts`."""
    made: BatchTask = type("AppBatchTask", (BatchTask,), {"parts": parts, "name": BATCH_TASK})()
    return made


class _Said:
    """The events of one row, which the worker's main process sends for what comes alone."""

    def __init__(self, announcer: Announcer, node: str, request: Mapping[str, Any]) -> None:
        self._announcer = announcer
        self._node = node
        self._request = request

    def began(self) -> None:
        """`task-received` and `task-started`."""
        request = self._request
        fields = {"name": request["task"], "args": request["argsrepr"], "kwargs": request["kwargsrepr"]}
        fields |= {name: request.get(name) for name in ("root_id", "parent_id", "retries", "eta", "expires")}
        self._say("task-received", fields)
        self._say("task-started", {})

    def ended(self, outcome: Any) -> None:
        """What came of it, in Celery's words; of what is ignored it says nothing."""
        info = outcome.info
        if info is None:
            self._say("task-succeeded", {"result": outcome.retstr, "runtime": outcome.runtime})
        elif info.state in (states.FAILURE, states.RETRY):
            error = outcome.retval
            fields = {"exception": saferepr(error.exception), "traceback": str(error.traceback)}
            self._say("task-failed" if info.state == states.FAILURE else "task-retried", fields)
        elif info.state == states.REJECTED:
            self._say("task-rejected", {})

    def _say(self, type: str, fields: Mapping[str, Any]) -> None:
        self._announcer.tell(type, self._node, {"uuid": self._request["id"], "timestamp": time.time(), **fields})


def _delivery(row: Pending) -> Delivery:
    return Delivery(row.id, row.name, row.kind, row.args, row.due, row.attempt, row.options, row.parent_id)
