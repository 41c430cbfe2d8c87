"""The instruments there are, and what an exporter of them must be able to do.

Every label is bounded: kinds, states and reasons are a handful of words; `name` is a function's or a task's, of which
`Events` tells at most 500 apart a process; `queue` is what the row itself names.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, Protocol

__all__ = ["INSTRUMENTS", "Instrument", "Metrics"]

_LAG: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 300.0, 3600.0)
_RUN: Final = (0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 300.0, 600.0)


@dataclass(frozen=True, slots=True)
class Instrument:
    """One number that is kept. Times are in seconds; `buckets` are a histogram's upper bounds."""

    name: str
    type: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...] = ()
    unit: Literal["", "seconds"] = ""
    buckets: tuple[float, ...] = ()
    across: Literal["max", "sum"] = "sum"
    """How a gauge of several processes of one host becomes one number."""


def _counter(name: str, help: str, *labels: str) -> Instrument:
    return Instrument(name, "counter", help, labels)


INSTRUMENTS: Final[Mapping[str, Instrument]] = {
    it.name: it
    for it in (
        _counter("scheduled", "Rows written, once their transaction has committed.", "kind"),
        _counter("rescheduled", "Pending rows moved to another time."),
        _counter("canceled", "Rows canceled, by a call or by Celery's revoke.", "by"),
        _counter("published", "Messages the broker took.", "kind"),
        _counter("republished", "Those of them whose earlier message had not come in time.", "kind"),
        _counter("refusals", "Messages the broker did not take; their rows went back to the table."),
        _counter("claimed", "Runs begun.", "kind"),
        _counter("dropped", "Messages that started nothing.", "reason"),
        _counter("finished", "Rows that ended with success or failed.", "kind", "name", "state"),
        _counter("retries", "Rows that went back to pending after a run had begun.", "reason"),
        _counter("worker_losses", "Runs whose worker process died."),
        _counter("dead_leases", "Running rows that no worker answered for any more.", "kind"),
        _counter("database_retries", "Transient database errors, each met by another try."),
        Instrument("lag", "histogram", "From the due time to the start.", ("kind", "queue"), "seconds", _LAG),
        Instrument("run", "histogram", "From the start to the recorded end.", ("kind", "name"), "seconds", _RUN),
        Instrument(
            "oldest_due", "gauge", "How long the oldest row has been due that no dispatcher has taken.",
            unit="seconds", across="max",
        ),
        Instrument("outbox", "gauge", "Rows claimed by dispatchers and not published yet."),
    )
}  # fmt: skip


class Metrics(Protocol):
    """Where the numbers go. Calls come from any thread, and from each process of a worker; they should not block."""

    def count(self, name: str, labels: Mapping[str, str], by: int = 1) -> None:
        """Add to the counter `name`."""

    def observe(self, name: str, labels: Mapping[str, str], value: float) -> None:
        """Put a value into the histogram `name`."""

    def set(self, name: str, value: float) -> None:
        """Set the gauge `name`."""

    def close(self) -> None:
        """This process ends."""
