"""The capture stands where Celery publishes: in `app.send_task`, which `apply_async`, canvas, retries and beat all use.

A call of a Confect function becomes a row. What a claimed task publishes in its own name, a retry or its replacement,
goes through its row, before any message of it exists. Delayed calls of other tasks become rows as `confect_capture`
says: "mirror" beside Celery's message, "durable" in its stead until they are nearly due.
"""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

from celery import Celery
from celery._state import get_current_task
from celery.utils.time import maybe_iso8601
from pydantic import BaseModel

from confect_celery.errors import ArgumentsTooLarge, ConfectError, InvalidArguments, InvalidSettings
from confect_celery.functions import FunctionRef, Registry
from confect_celery.runtime.messages import ATTEMPT_HEADER, encode_call, renamed
from confect_celery.runtime.parts import Parts
from confect_celery.runtime.plain import CANCELED, claim_of
from confect_celery.runtime.task import ConfectTask, attempt_of
from confect_celery.store import Delivery, EncodedCall, OwnTransaction
from confect_celery.timing import DateTime, Duration

if TYPE_CHECKING:
    from celery.result import AsyncResult

__all__ = ["MODES", "Capture", "Mode", "Scheduling", "check_modes"]

logger = logging.getLogger(__name__)

Mode = Literal["off", "mirror", "durable"]
MODES: Final = ("off", "mirror", "durable")

_LONGEST_ID: Final = 36
_OF_THE_CALLER: Final = ("producer", "connection", "publisher", "router", "result_cls", "task_type", "add_to_parent")
"""What `send_task` takes that means something in this process only."""


class Scheduling(Protocol):
    """Writes rows, in the transaction of the mutation that runs if one does."""

    def take_over(self, call: EncodedCall, id: str | None, due: DateTime, *, sent: bool) -> str | None:
        """Write the row of `call`; None where there is one of this id. `sent`: Celery brings the message itself."""

    def take_over_function(
        self, ref: FunctionRef[Any, Any], args: Any, id: str | None, due: DateTime, options: Mapping[str, Any]
    ) -> str | None:
        """The same for a Confect function."""


class CaptureParts(Parts, Protocol):
    """What the capture needs of the app."""

    registry: Registry

    def publish(self, delivery: Delivery) -> object:
        """Hand over to Celery what is nearly due, or give it back to the table."""

    def scheduling(self) -> Scheduling:
        """The scheduler of the mutation that runs here, or one that commits each call."""
        ...


def check_modes(app: Celery) -> None:
    """Raise InvalidSettings for a task whose own `confect_capture` is none of the modes."""
    for name, task in app.tasks.items():
        mode = getattr(task, "confect_capture", None)
        if mode is not None and mode not in MODES:
            raise InvalidSettings({f"confect_capture of the task {name}": f"{mode!r} is none of {', '.join(MODES)}"})


class Capture:
    """`app.send_task`, with what belongs to us taken out."""

    def __init__(self, parts: CaptureParts) -> None:
        self._parts = parts
        self._app = parts.app
        self._before = vars(parts.app).get("send_task")

    def install(self) -> None:
        """Stand in the app's `send_task`."""
        self._app.send_task = self  # type: ignore[method-assign]

    @property
    def before(self) -> Any:
        """What the shop itself had put there; None for Celery's own."""
        return self._before

    def native(self, *args: Any, **kwargs: Any) -> AsyncResult[Any]:
        """Celery's own; looked up at each call, since instrumentation replaces it on the class."""
        result: AsyncResult[Any] = (
            self._before(*args, **kwargs) if self._before else type(self._app).send_task(self._app, *args, **kwargs)
        )
        return result

    def __call__(
        self,
        name: str,
        args: Any = None,
        kwargs: Any = None,
        countdown: float | None = None,
        eta: Any = None,
        task_id: str | None = None,
        producer: Any = None,
        connection: Any = None,
        *rest: Any,
        **options: Any,
    ) -> AsyncResult[Any]:
        """As `Celery.send_task`."""
        given = {"producer": producer, "connection": connection, **options}
        if not rest:
            done = self._ours(name, args, kwargs, countdown, eta, task_id, given)
            if isinstance(done, str):
                return self._result(done, given)
            if done is not None:
                given, task_id = done
        return self.native(name, args, kwargs, countdown, eta, task_id, given.pop("producer"), given.pop("connection"),
                           *rest, **given)  # fmt: skip

    def _ours(
        self, name: str, args: Any, kwargs: Any, countdown: Any, eta: Any, id: str | None, given: dict[str, Any]
    ) -> str | tuple[dict[str, Any], str] | None:
        """The id of a call that has been taken over; or what to publish it with after all; None: Celery's own."""
        task = self._app._tasks.get(name)  # type: ignore[attr-defined]  # unlike `tasks` it finalizes nothing
        if isinstance(task, ConfectTask):
            return self._function(name, args, kwargs, self._due(countdown, eta), id, given)
        if id is not None:
            claimed = self._claimed_attempt(id, given)
            if claimed is not None:
                return self._again(name, args, kwargs, self._due(countdown, eta), id, claimed, given)
        if (not countdown and eta is None) or name.startswith("celery."):
            return None
        mode = getattr(task, "confect_capture", None) or self._parts.settings.capture
        if mode == "off":
            return None
        due = self._due(countdown, eta)
        if due - self._parts.clock.now() <= self._parts.settings.capture_min_countdown:
            return None
        return self._delayed(name, args, kwargs, due, id, given, mirrored=mode == "mirror")

    # -- a Confect function that is called as a task, by beat for example

    def _function(
        self, name: str, args: Any, kwargs: Any, due: DateTime, id: str | None, given: dict[str, Any]
    ) -> str | None:
        ref = self._parts.registry.get(name)
        options = encode_call(name, None, None, _kept(given)).options
        arguments = dict(kwargs or {})
        for value in args or ():
            arguments.update(value.model_dump() if isinstance(value, BaseModel) else dict(value))
        return self._parts.scheduling().take_over_function(ref, arguments or None, id, due, options) or id

    # -- a task that runs in its row's name and publishes itself anew

    def _claimed_attempt(self, id: str, given: dict[str, Any]) -> int | None:
        sent_for = attempt_of(given.get("headers"))
        if given.get("retries") and sent_for >= 0:
            return sent_for + 1
        task = get_current_task()
        if task is None or task.request.id != id:
            return None
        claim = claim_of(task.request)
        return None if claim is None else claim.attempt

    def _again(
        self, name: str, args: Any, kwargs: Any, due: DateTime, id: str, claimed: int, given: dict[str, Any]
    ) -> str | tuple[dict[str, Any], str]:
        parts = self._parts
        database, rows, settings = parts.store.database, parts.store.rows, parts.settings
        now = parts.clock.now()
        lost_at = now + settings.horizon + settings.redelivery if due <= now + settings.horizon else None
        row = database.reading(lambda connection: rows.get(connection, id))
        try:
            call = encode_call(name, args, kwargs, _kept(given))
        except (InvalidArguments, ArgumentsTooLarge) as error:
            if row is None:
                return _with_attempt(given, claimed + 1), id
            # The table cannot hold it, as with pickled arguments: Celery publishes it as ever, guarded all the same.
            logger.warning("The retry of %s[%s] is not durable: %s", name, id, error)
            lost_at = max(due, now) + settings.redelivery
            call = EncodedCall(row.name, "task", row.args, {**row.options, "retries": given.get("retries") or 0})
            unstorable = True
        else:
            unstorable = False
            if row is not None:
                call = renamed(call, row.name)

        def retry(transaction: OwnTransaction) -> Delivery | None:
            return rows.retry(transaction.connection, id, claimed, call, due, lost_at)

        delivery = database.retrying(retry, tries=10)
        if delivery is not None:
            parts.store.events.retried(id, delivery.name, "asked")
        task = get_current_task()
        if delivery is None:
            if task is not None and task.request.id == id:
                setattr(task.request, CANCELED, True)
        elif unstorable:
            return _with_attempt(given, claimed + 1), id
        elif lost_at is not None:
            parts.publish(delivery)
        return id

    # -- a delayed call of any other task

    def _delayed(
        self, name: str, args: Any, kwargs: Any, due: DateTime, id: str | None, given: dict[str, Any], *, mirrored: bool
    ) -> str | tuple[dict[str, Any], str] | None:
        options = {**_kept(given), **self._lineage(given)}
        try:
            call = encode_call(name, args, kwargs, options)
        except ConfectError as error:
            logger.warning("A delayed call of %s is left to Celery: %s", name, error)
            return None
        if id is not None and len(id) > _LONGEST_ID:
            logger.warning("A delayed call of %s is left to Celery: its id %r is too long.", name, id)
            return None
        try:
            taken = self._parts.scheduling().take_over(call, id, due, sent=mirrored)
        except Exception:
            if not mirrored:
                raise
            logger.exception("A delayed call of %s could not be mirrored; Celery has it all the same.", name)
            return None
        if taken is None or not mirrored:
            return taken
        return _with_attempt(given, 0), taken

    def _lineage(self, given: dict[str, Any]) -> dict[str, Any]:
        # As send_task does it: by the time the message is published the caller is gone.
        parent = self._app.current_worker_task
        lineage: dict[str, Any] = {"reply_to": given.get("reply_to") or self._app.thread_oid}
        if given.get("expires") is not None:
            lineage["expires"] = self._due(given["expires"], None).to_utc().isoformat() if isinstance(
                given["expires"], (int, float)) else given["expires"]  # fmt: skip
        if parent is not None:
            lineage["root_id"] = given.get("root_id") or parent.request.root_id or parent.request.id
            lineage["parent_id"] = given.get("parent_id") or parent.request.id
            if self._app.conf.task_inherit_parent_priority and given.get("priority") is None:
                lineage["priority"] = (parent.request.delivery_info or {}).get("priority")
        return lineage

    # -- how

    def _due(self, countdown: float | None, eta: Any) -> DateTime:
        now = self._parts.clock.now()
        if eta is not None:
            when: dt.datetime = maybe_iso8601(eta)  # type: ignore[assignment]
            # Celery takes a naive eta for UTC, whatever its timezone setting says.
            return DateTime.of(when if when.tzinfo else when.replace(tzinfo=dt.UTC))
        return now + Duration.seconds(countdown) if countdown else now

    def _result(self, id: str, given: Mapping[str, Any]) -> AsyncResult[Any]:
        result: AsyncResult[Any] = (given.get("result_cls") or self._app.AsyncResult)(id)
        parent = self._app.current_worker_task if given.get("add_to_parent", True) else None
        if parent is not None and parent.request.id != id:
            parent.add_trail(result)
        return result


def _kept(given: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in given.items() if key not in _OF_THE_CALLER}


def _with_attempt(given: Mapping[str, Any], attempt: int) -> dict[str, Any]:
    return {**given, "headers": {**(given.get("headers") or {}), ATTEMPT_HEADER: attempt}}
