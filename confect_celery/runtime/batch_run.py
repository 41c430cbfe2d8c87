"""A batch in a child: each row runs as the task that it is, under its own id, as if it had come alone."""

from __future__ import annotations

import contextvars
import logging
import time
from collections.abc import Iterator, Mapping
from typing import Any, Final

from celery import states
from celery.app import trace
from celery.app.task import Context
from celery.utils.saferepr import saferepr

from confect_celery.runtime.announce import Announcer
from confect_celery.runtime.batches import LONGEST_SECONDS, Entry, entries_of
from confect_celery.runtime.board import At, Board
from confect_celery.runtime.messages import LOADED, task_name
from confect_celery.runtime.outbox import Outbox
from confect_celery.runtime.parts import Parts
from confect_celery.runtime.punctual import A_MOMENT, wait_until
from confect_celery.runtime.relay import CLAIMS, Relay
from confect_celery.runtime.sharing import Sharing
from confect_celery.runtime.task import ConfectTask, RunAgain
from confect_celery.runtime.transport import CeleryTransport
from confect_celery.store import Delivery, Pending, StateKind
from confect_celery.timing import DateTime, Duration

__all__ = ["TELLS_EVENTS", "BatchRun"]

logger = logging.getLogger(__name__)

TELLS_EVENTS: Final = "confect_events"
"""Whether the worker sends task events: its main process knows, the child does not."""

_TRIES: Final = 10

_HELD: Final = 17
"""A third of the fullest batch by default, so that none of it is left over."""
_FEWEST_HELD: Final = 3
"""To hold fewer together saves nothing."""

_END_WAITS: Final = Duration.millis(5)
"""The end of a row waits no longer for the next one's time: it is true already, and nobody can see it."""


class BatchRun:
    """One batch's rows, in order. Brief mutations that follow each other run inside each other, to share a commit.

    Brief actions and plain tasks are held together, so that they begin without waiting for the disk.
    """

    def __init__(self, parts: Parts, request: Any, board: Board | None, transport: CeleryTransport) -> None:
        self._parts = parts
        self._request = request
        self._board = board
        self._entries = entries_of(vars(request))
        self._transport = transport
        self._next = 0
        self._again: list[int] = []
        self._inside = 0.0
        self._context = contextvars.copy_context()
        sharing = Sharing(parts.store, parts.clock, parts.settings, self._following, self._run_inside)
        self._sharing = sharing
        self._relay = Relay(parts.store, parts.clock, parts.settings, self._next_claims, sharing)
        ids = [entry.id for entry in self._entries]
        database, rows = parts.store.database, parts.store.rows
        self._found = database.reading(lambda connection: rows.load_many(connection, ids), tries=_TRIES)
        self._passed = parts.clock.now()
        """What was due by then needs no look at the clock."""
        self._soon = self._passed + A_MOMENT
        self._held: dict[str, Pending] = {}
        """Rows of `_found` as they became when they were held."""
        self._own_headers: dict[tuple[str, ...], tuple[str, ...]] = {}
        self._began = time.monotonic()

    def run(self) -> int:
        """Run them; how many were begun."""
        with self._parts.store.database.keeping_a_connection():
            return self._run()

    def _run(self) -> int:
        try:
            while self._next < len(self._entries):
                if self._next and self._is_late():
                    left = [each.id for each in self._entries[self._next :] if each.id not in self._held]
                    self._hand_on([row for id in left if (row := self._found.get(id)) is not None])
                    break
                self._step()
                again, self._again = sorted(self._again), []  # the innermost came to its end first
                for at in again:
                    self._run_row(at, self._alone())
        except BaseException as error:
            self._sharing.abandon(error)
            raise
        finally:
            try:
                self._relay.flush()
            finally:
                self._relay.release()
        return self._next

    def _step(self) -> None:
        at, self._next = self._next, self._next + 1
        self._hold_from(at)
        self._run_row(at, self._relay)
        id = self._entries[at].id
        self._relay.flush(but=id)
        if self._relay.holds(id):  # it did not come so far that it began
            self._relay.let_go(id, self._held[id].attempt)

    def _run_inside(self) -> None:
        # In a context of its own, as it would have with a message of its own: it is no part of what it runs inside.
        began = time.monotonic()
        self._context.copy().run(self._step)
        self._inside += time.monotonic() - began

    def _alone(self) -> Relay:
        return Relay(self._parts.store, self._parts.clock, self._parts.settings, lambda: False)

    def _hold_from(self, at: int) -> None:
        """Hold the row and those after it that are alike, where none is held yet."""
        first = self._found.get(self._entries[at].id)
        if first is None or first.kind == "mutation" or first.id in self._held:
            return
        if not self._parts.store.database.dialect.holds:
            return
        rows: list[Pending] = []
        for entry in self._entries[at : at + _HELD]:
            row = self._found.get(entry.id)
            if row is None or self._mismatch(entry, row) or not self._may_hold(row) or row.attempt != entry.attempt:
                break
            if rows and row.attempt != rows[0].attempt:
                break
            rows.append(row)
        if len(rows) >= _FEWEST_HELD:
            self._held |= {row.id: row for row in self._relay.hold(rows)}

    def _may_hold(self, row: Pending) -> bool:
        if row.kind == "mutation" or row.scheduled_time > self._soon:
            return False
        name = task_name(row.name, row.options)
        return name in self._parts.app.tasks and self._parts.brevity.is_brief(name)

    def _is_late(self) -> bool:
        return time.monotonic() - self._began > LONGEST_SECONDS

    def _next_rows(self) -> Iterator[Pending]:
        """The rows that come next, as they look from here, up to one that is not as its entry says."""
        if self._is_late():
            return
        for at in range(self._next, len(self._entries)):
            entry = self._entries[at]
            row = self._found.get(entry.id)
            if row is None or self._mismatch(entry, row) is not None:
                return
            yield row

    def _next_claims(self) -> bool:
        row = next(self._next_rows(), None)
        if row is None or row.kind == "mutation":
            return False
        return row.scheduled_time <= self._passed or row.scheduled_time <= self._parts.clock.now() + _END_WAITS

    def _following(self) -> Iterator[Pending]:
        return self._sharing_by(self._passed)

    def _sharing_by(self, until: DateTime) -> Iterator[Pending]:
        """The rows that come next, as long as they are mutations that may share a transaction and due by then."""
        for row in self._next_rows():
            mutates = row.kind == "mutation" and row.scheduled_time <= until
            task = self._parts.app.tasks.get(row.name) if mutates else None
            if not isinstance(task, ConfectTask) or not task.gate().may_share(row):
                return
            yield row

    def _await(self, row: Pending, at: int, relay: Relay) -> None:
        """Wait for the row's time, if it comes in a moment, and for that of mutations that may follow it in its
        transaction. Not within the task: the time is none of its own."""
        if row.scheduled_time <= self._passed or self._sharing.is_open:
            return
        alike = self._sharing_by(self._soon) if row.kind == "mutation" else ()
        last = max(each.scheduled_time for each in (row, *alike))
        self._note(at, relay, early=True)
        if wait_until(last, self._parts.clock, A_MOMENT):
            self._passed = last

    def _note(self, at: int, relay: Relay, *, early: bool = False) -> None:
        if self._board is not None:
            held = self._entries[at].id in self._held
            held_before = at > 0 and self._entries[at - 1].id in self._held
            self._board.note(str(self._request.id), At(at, relay.waits, held, held_before, early))

    @staticmethod
    def _mismatch(entry: Entry, row: Pending | None) -> str | None:
        if row is None or row.attempt != entry.attempt:
            return "superseded"
        return None if task_name(row.name, row.options) == entry.name else "misnamed"

    def _run_row(self, at: int, relay: Relay) -> None:
        parts, batch, entry = self._parts, self._request, self._entries[at]
        row = self._found.get(entry.id)
        mismatch = self._mismatch(entry, row)
        if row is not None and mismatch is None:
            self._await(row, at, relay)
        self._note(at, relay)
        if row is None or mismatch is not None:
            why = self._why_not(entry) if row is None else mismatch or "superseded"
            parts.store.events.dropped(entry.id, entry.name, entry.attempt, why)
            return
        row = self._held.get(entry.id, row)
        task = parts.app.tasks.get(entry.name)
        if task is None:  # a worker with other code may know it; and if none does, Celery tells
            self._hand_on([row])
            return
        request = self._transport.request(_delivery(row))
        request.update(
            {
                "headers": self._headers(request),  # else Celery takes ours for the message's, and a retry sends them
                LOADED: row,
                CLAIMS: relay,
                "hostname": batch.hostname,
                "delivery_info": batch.delivery_info,
                "is_eager": False,
                "timelimit": [row.options.get("time_limit"), None],
            }
        )
        said = _Said(parts.announcer, batch.hostname, request) if getattr(batch, TELLS_EVENTS, False) else None
        if said and relay is self._relay:  # else it has been said
            said.began()
        inside, self._inside = self._inside, 0.0
        outcome: Any = trace.trace_task(
            task, entry.id, request["args"], request["kwargs"], request, app=parts.app, hostname=batch.hostname
        )
        inside, self._inside = self._inside, inside
        if outcome.info is not None and isinstance(outcome.info.retval, RunAgain):
            self._again.append(at)
        elif said:
            said.ended(outcome, less=inside)

    def _why_not(self, entry: Entry) -> str:
        """Why the row is not pending. Who waits for what was canceled hears of it, as of what comes alone."""
        parts, rows = self._parts, self._parts.store.rows
        state = parts.store.database.reading(lambda connection: rows.state(connection, entry.id), tries=_TRIES)
        task = parts.app.tasks.get(entry.name)
        if state is not StateKind.CANCELED:
            return "superseded"
        if task is not None:
            try:
                task.backend.mark_as_revoked(entry.id, "canceled")
            except Exception:
                logger.exception("The result backend cannot be told that %s is canceled.", entry.id)
        return "canceled"

    def _headers(self, request: dict[str, Any]) -> dict[str, Any] | None:
        """Those of the shop's own, as Celery would find them."""
        if request.get("headers") is not None:
            return request["headers"]  # type: ignore[no-any-return]
        names = tuple(request)
        if names not in self._own_headers:
            self._own_headers[names] = tuple(Context(request).headers or ())
        return {name: request[name] for name in self._own_headers[names]} or None

    def _hand_on(self, rows: list[Pending]) -> None:
        """Publish each in a message of its own: one that takes long must not hold up what came with it."""
        outbox = Outbox(self._parts.store, self._transport, self._parts.clock)
        for row in rows:
            outbox.publish(_delivery(row))


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

    def ended(self, outcome: Any, *, less: float) -> None:
        """What came of it, in Celery's words; of what is ignored it says nothing. So many seconds `less` it ran: others
        ran inside it."""
        info = outcome.info
        if info is None:
            self._say("task-succeeded", {"result": outcome.retstr, "runtime": max(outcome.runtime - less, 0.0)})
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
