"""The one room that both metrics and structured log lines pass through: one call at each seam of the runtime.

Log lines go to the logger `confect_celery.events`; each carries `confect_event` and fields of stable names
(docs/observability.md). Arguments, results and the text of functions' errors are in none of them.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

from confect_celery.metrics.instruments import Metrics
from confect_celery.timing import DateTime

__all__ = ["Events"]

logger = logging.getLogger("confect_celery.events")
_own = logging.getLogger(__name__)

_MOST_NAMES: Final = 500
_OTHER: Final = "(other)"
_STRANGE: Final = ("missing", "misnamed")
"""Why messages are dropped that no dispatcher wrote, or whose row was deleted by hand."""

DEBUG, INFO, WARNING, ERROR = logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR


class _Call(Protocol):
    """A row, or a delivery of it."""

    @property
    def id(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def kind(self) -> str: ...


class _Attempt(_Call, Protocol):
    @property
    def attempt(self) -> int: ...


class _Transaction(Protocol):
    def after_commit(self, callback: Callable[[], None]) -> bool: ...


def _printable(text: str) -> str:
    # As a stranger may have written it: a line break would forge a log line.
    return "".join(each if each.isprintable() else "?" for each in text)


def _after_commit(transaction: _Transaction, tell: Callable[[], None]) -> None:
    # On a connection of the caller's that does not announce its commit, it is told when written.
    if not transaction.after_commit(tell):
        tell()


class Events:
    """What happens to rows. No method raises or waits; without `metrics`, below the log level, each is a few tests."""

    def __init__(self, metrics: Metrics | None = None) -> None:
        self.metrics = metrics
        self._names: set[str] = set()
        self._broken = threading.Event()

    # -- scheduling

    def scheduled(self, transaction: _Transaction, rows: Sequence[_Call], *, canceled: bool = False) -> None:
        """These rows are written in `transaction`; `canceled`: born so."""
        if not self._listens(DEBUG):
            return

        def tell() -> None:
            for row in rows:
                self._count("scheduled", kind=row.kind)
                self._say(DEBUG, "scheduled", row, born_canceled=canceled)
            if canceled:
                self._count("canceled", by=len(rows), how="born")

        _after_commit(transaction, tell)

    def canceled(self, transaction: _Transaction, id: str, done: bool, how: str = "call") -> bool:
        """A cancel changed the row, or did not; gives back which."""

        def tell() -> None:
            self._count("canceled", how=how)
            self._log(INFO, "canceled", "Canceled %s", id, id=id, how=how)

        if done and self._listens(INFO):
            _after_commit(transaction, tell)
        return done

    def rescheduled(self, transaction: _Transaction, id: str, due: DateTime) -> None:
        """A pending row has another time."""

        def tell() -> None:
            self._count("rescheduled")
            self._log(INFO, "rescheduled", "Rescheduled %s to %s", id, due, id=id, due=str(due))

        if self._listens(INFO):
            _after_commit(transaction, tell)

    # -- on the way

    def published(self, delivery: _Attempt, *, again: bool) -> None:
        """The broker took the message; `again`: an earlier one did not come in time."""
        self._count("published", kind=delivery.kind)
        if again:
            self._count("republished", kind=delivery.kind)
        self._say(INFO if again else DEBUG, "republished" if again else "published", delivery, attempt=delivery.attempt)

    def refused(self, delivery: _Attempt, error: Exception) -> None:
        """The broker did not take the message."""
        self._count("refusals")
        text = f"{type(error).__name__}: {error}"[:500]
        self._log(
            ERROR, "refused", "Could not publish %s[%s]: %s", delivery.name, delivery.id, text, id=delivery.id,
            name=delivery.name, kind=delivery.kind, attempt=delivery.attempt, error=type(error).__name__,
        )  # fmt: skip

    def polled(self, oldest: DateTime | None, now: DateTime, outbox: int) -> None:
        """A dispatcher looked at the table."""
        metrics = self.metrics
        if metrics is not None:
            age = 0.0 if oldest is None else max((now - oldest).total_seconds(), 0.0)
            self._safely(lambda: metrics.set("oldest_due", age))
            self._safely(lambda: metrics.set("outbox", float(outbox)))

    # -- running

    def claimed(self, row: _Attempt, due: DateTime, now: DateTime, queue: object, *, first: bool = True) -> None:
        """A run begins; `first`: it is not the task's own retry, whose time is another than the row's."""
        self._count("claimed", kind=row.kind)
        lag = max((now - due).total_seconds(), 0.0) if first else None
        if lag is not None:
            self._observe("lag", lag, kind=row.kind, queue=str(queue or "(default)"))
        self._say(DEBUG, "claimed", row, attempt=row.attempt, lag=lag)

    def dropped(self, id: str, name: str, attempt: int, reason: str) -> None:
        """A message started nothing."""
        self._count("dropped", reason=reason)
        strange = reason in _STRANGE
        id, name = _printable(id[:36]), _printable(name[:200])
        text = "Dropped a message of %s[%s]: %s"
        self._log(WARNING if strange else INFO, "dropped", text, name, id, reason, id=id, name=name, attempt=attempt,
                  reason=reason)  # fmt: skip

    def finished(self, row: _Call, state: str, seconds: float | None = None, error: str | None = None) -> None:
        """A row ended. `error` is the tag of what it failed with; `seconds` it ran, where that is known."""
        if self.metrics is not None:
            name = self._bounded(row.name)
            self._count("finished", kind=row.kind, name=name, state=state)
            if seconds is not None:
                self._observe("run", seconds, kind=row.kind, name=name)
        level = DEBUG if state == "success" else WARNING
        self._say(level, "finished", row, state=state, seconds=seconds, error=error)

    def retried(self, id: str, name: str, reason: str) -> None:
        """A run had begun, and the row is pending again: "asked" by the task, "rejected", "database", "worker_lost"."""
        self._count("retries", reason=reason)
        self._log(INFO, "retried", "%s[%s] is tried again: %s", name, id, reason, id=id, name=name, reason=reason)

    def worker_lost(self, id: str) -> None:
        """The process that ran the row died."""
        self._count("worker_losses")
        self._log(WARNING, "worker_lost", "The process that ran %s died.", id, id=id)

    def dead_lease(self, row: _Call) -> None:
        """No worker answers for the running row any more."""
        self._count("dead_leases", kind=row.kind)
        self._say(WARNING, "dead_lease", row)

    def database_retry(self, error: Exception) -> None:
        """A transient database error; what met it is done again."""
        self._count("database_retries")
        self._log(DEBUG, "database_retry", "Transient database error: %s", type(error).__name__,
                  error=type(error).__name__)  # fmt: skip

    def close(self) -> None:
        """This process ends."""
        if self.metrics is not None:
            self._safely(self.metrics.close)

    # -- how

    def _listens(self, level: int) -> bool:
        return self.metrics is not None or logger.isEnabledFor(level)

    def _say(self, level: int, event: str, row: _Call, **fields: Any) -> None:
        if logger.isEnabledFor(level):
            said = "".join(f" {key}={value}" for key, value in fields.items() if value is not None)
            self._log(level, event, "%s %s[%s]%s", event, row.name, row.id, said, id=row.id, name=row.name,
                      kind=row.kind, **fields)  # fmt: skip

    def _log(self, level: int, event: str, text: str, *values: object, **fields: Any) -> None:
        if logger.isEnabledFor(level):
            extra = {f"confect_{key}": value for key, value in fields.items()}
            logger.log(level, text, *values, extra={"confect_event": event, **extra})

    def _count(self, metric: str, /, *, by: int = 1, how: str | None = None, **labels: str) -> None:
        metrics = self.metrics
        if metrics is not None:
            given = labels if how is None else {**labels, "by": how}
            self._safely(lambda: metrics.count(metric, given, by))

    def _observe(self, metric: str, value: float, /, **labels: str) -> None:
        metrics = self.metrics
        if metrics is not None:
            self._safely(lambda: metrics.observe(metric, labels, value))

    def _bounded(self, name: str) -> str:
        if name not in self._names:
            if len(self._names) >= _MOST_NAMES:
                return _OTHER
            self._names.add(name)
        return name

    def _safely(self, call: Callable[[], None]) -> None:
        # A broken exporter costs its numbers, never a job; it is told of once.
        try:
            call()
        except Exception:
            if not self._broken.is_set():
                self._broken.set()
                _own.exception("The metrics cannot be recorded; this is not told again.")
