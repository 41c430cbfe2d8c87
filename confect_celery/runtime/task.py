"""A Confect function as a Celery task: the gate's outcome in Celery's terms."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, ClassVar, Final

import celery
from billiard.exceptions import WorkerLostError
from celery.exceptions import Ignore
from celery.utils.imports import symbol_by_name
from celery.worker.request import Request
from pydantic import BaseModel
from pydantic_core import to_jsonable_python

from confect_celery.functions import FunctionRef
from confect_celery.runtime.gate import Again, Failed, Postponed, Succeeded
from confect_celery.runtime.messages import ATTEMPT_HEADER, loaded_row
from confect_celery.runtime.relay import claims_of

if TYPE_CHECKING:
    from confect_celery.runtime.gate import Gate
    from confect_celery.runtime.reconciler import Reconciler

__all__ = [
    "ConfectRequest",
    "ConfectTask",
    "RunAgain",
    "attempt_of",
    "make_task",
    "past_eta",
    "tell_revoked",
    "telling",
]


_LONGEST_ID: Final = 36
_MOST_ATTEMPTS: Final = 2**31
_WORTH_MOVING: Final = dt.timedelta(milliseconds=5)


def attempt_of(headers: Any) -> int:
    """The attempt that a message is for; -1, which matches no row, when it does not say so readably.

    Whoever can write to the broker can write anything here: what no row could hold must not reach a statement either,
    for a database that refuses to bind it would fail what shares the statement.
    """
    get = getattr(headers, "get", None)
    attempt, id = (get(ATTEMPT_HEADER), get("id")) if get is not None else (None, None)
    if id is not None and not (isinstance(id, str) and len(id) <= _LONGEST_ID and id.isprintable()):
        return -1
    return attempt if type(attempt) is int and 0 <= attempt < _MOST_ATTEMPTS else -1


def tell_revoked(task: Any) -> None:
    """Have the result backend and Flower know that the running message's row is canceled.

    After a bare Ignore the backend would say PENDING and Flower STARTED for ever.
    """
    task.backend.mark_as_revoked(str(task.request.id), "canceled", request=task.request)
    task.send_event("task-revoked", terminated=False, signum=None, expired=False)


class RunAgain(Ignore):
    """Who runs the batch is to run the row again, by itself."""


def _here(eta: dt.datetime, headers: Any) -> dt.datetime:
    """When the time of a message has come by this host's clock."""
    reconciler = ConfectTask.reconciler
    if reconciler is not None and abs(reconciler.ahead) > _WORTH_MOVING and attempt_of(headers) >= 0:
        with suppress(OverflowError):  # somebody's message, for the end of all time
            return eta - reconciler.ahead
    return eta


def past_eta(headers: Any) -> str | None:
    """The eta of a message of ours, in the form that we give it, where its time has come."""
    if not isinstance(headers, dict):
        return None
    eta = headers.get("eta")
    if not isinstance(eta, str) or not eta.endswith("+00:00") or ATTEMPT_HEADER not in headers:
        return None
    try:
        return eta if _here(dt.datetime.fromisoformat(eta), headers) <= dt.datetime.now(dt.UTC) else None
    except ValueError:
        return None


class TellsEnds:
    """Mixed into a task's Request: tells the reconciler of the ends that only the worker's main process sees, with the
    attempt they belong to."""

    id: str
    task: Any
    request_dict: Any

    def __init__(self, message: Any, *args: Any, **kwargs: Any) -> None:
        """A message whose eta is past goes to the pool at once: Celery would put even that on its timer.

        A row's eta is the database's time; Celery takes it for this host's, which may be off. To read one takes Celery
        a tenth of a millisecond, most of it for the zone of one that has none: one that is past is kept from it.
        """
        headers: Any = kwargs.get("headers") or getattr(message, "headers", None)
        eta = past_eta(headers)
        if eta is not None:
            kwargs["headers"] = {**headers, "eta": None}
        super().__init__(message, *args, **kwargs)  # type: ignore[call-arg]  # a Request's
        if eta is not None:
            self.request_dict["eta"] = eta
            return
        given: dt.datetime | None = getattr(self, "_eta", None)
        if given is not None and given.tzinfo is not None:
            due = _here(given, headers)
            self._eta = due if due > dt.datetime.now(dt.UTC) else None

    def on_timeout(self, soft: bool, timeout: float) -> None:
        """The hard limit killed the child: no code of the function's could record it."""
        super().on_timeout(soft, timeout)  # type: ignore[misc]
        reconciler, attempt = ConfectTask.reconciler, attempt_of(self.request_dict)
        if not soft and reconciler is not None and attempt >= 0:
            reconciler.timed_out(self.id, attempt, timeout)

    def on_failure(self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False) -> None:
        """The child died."""
        super().on_failure(exc_info, send_failed_event=send_failed_event, return_ok=return_ok)  # type: ignore[misc]
        reconciler, attempt = ConfectTask.reconciler, attempt_of(self.request_dict)
        error = exc_info.exception
        error = getattr(error, "exc", error)  # the pool wraps it together with its traceback
        lost = isinstance(error, (WorkerLostError, SystemExit, KeyboardInterrupt))
        revoked = getattr(self, "_already_revoked", False) or getattr(self, "_already_cancelled", False)
        if not lost or revoked or reconciler is None or attempt < 0:
            return
        stored = getattr(self, "_success_was_stored", None)  # since Celery 5.7
        if not isinstance(self.task, ConfectTask) and stored is not None and stored():
            reconciler.succeeded(self.id, attempt)
        elif self.task.acks_late and self.task.reject_on_worker_lost:
            reconciler.requeued(self.id, attempt, str(error))
        else:
            reconciler.worker_lost(self.id, attempt, str(error))


class ConfectRequest(TellsEnds, Request):  # pyright: ignore[reportIncompatibleMethodOverride]  # Celery's are properties
    """The Request of Confect functions, and of plain tasks that have none of their own."""


def telling(request: Any) -> Any:
    """A task's Request class, or its path, as one that tells the ends too."""
    cls = symbol_by_name(request)
    if issubclass(cls, TellsEnds):
        return cls
    return ConfectRequest if cls is Request else type(cls.__name__, (TellsEnds, cls), {})


class ConfectTask(celery.Task):  # type: ignore[type-arg]
    """Carries no arguments and no logic: the row has the arguments, the gate decides and runs.

    Messages are acknowledged early: what is lost is published again from its row, so the broker need not remember.
    """

    Request = "confect_celery.runtime.task:ConfectRequest"
    abstract = True
    acks_late = False
    typing = False
    max_retries = 0
    reconciler: ClassVar[Reconciler | None] = None
    """The running worker's; None in every other process."""

    def gate(self) -> Gate:
        """The app's gate; each function's own task knows it."""
        raise TypeError("a task of a Confect function is made by make_task()")

    def run(self, *_args: Any, **_kwargs: Any) -> Any:
        """Run the row whose id is the task id."""
        request = self.request
        outcome = self.gate().run(
            str(request.id), attempt_of(request), self.name, loaded_row(request), claims_of(request)
        )
        if isinstance(outcome, Succeeded):
            return _plain(outcome.result)
        if isinstance(outcome, Failed):
            raise outcome.error
        if isinstance(outcome, Again):
            raise RunAgain
        if isinstance(outcome, Postponed):
            raise Ignore(f"postponed: {outcome.error}")
        if outcome.reason == "canceled":
            tell_revoked(self)
        raise Ignore(outcome.reason)


def make_task(ref: FunctionRef[Any, Any], gate_of: Callable[[], Gate]) -> ConfectTask:
    """The Celery task of a function; `gate_of()` gives the gate once the app is configured."""

    class FunctionTask(ConfectTask):
        """One function's task."""

        name = ref.name
        throws = ref.options.errors
        __module__ = ref.function.__module__
        __doc__ = ref.function.__doc__

        def gate(self) -> Gate:
            return gate_of()

    return FunctionTask()


def _plain(result: Any) -> Any:
    # What a function returns goes to Celery's result backend, whose JSON knows neither models nor DateTime.
    return (
        to_jsonable_python(result, fallback=repr)
        if not isinstance(result, BaseModel)
        else result.model_dump(mode="json")
    )
