"""What must be true, told without a line of the package: plain values, filled by what was asked for and what was seen.

The model predicts what only the guarantees fix (who exists, who was cancelled, when a job's time is) and watches the
rest: a job may fail only with an error that something in its story excuses.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, NoReturn

LIVE: Final = ("pending", "inProgress")
TERMINAL: Final = ("success", "failed", "canceled")
EDGES: Final = {
    "pending": {"pending", "inProgress", "success", "failed", "canceled"},
    "inProgress": {"inProgress", "pending", "success", "failed", "canceled"},
}

RAISED: Final = ("Declared", "TooManyScheduled", "CannotCancelItself")
"""What only a function that ran can have raised."""


class Violation(AssertionError):
    """Guarantee `number` of section 6 does not hold."""

    raised: Violation | None = None
    """The first one, so that nothing found afterwards hides it."""

    def __init__(self, number: int, why: str) -> None:
        self.number = number
        super().__init__(f"guarantee {number}: {why}")
        Violation.raised = Violation.raised or self


def violated(number: int, why: str) -> NoReturn:
    raise Violation(number, why)


@dataclass
class Row:
    """One row as raw SQL shows it; times in microseconds since the epoch."""

    key: int
    id: str
    name: str
    kind: str
    state: str
    tag: str | None
    scheduled: int
    created: int
    completed: int | None
    next_at: int | None
    attempt: int
    deliveries: int
    losses: int


@dataclass
class Job:
    """One committed schedule; `key` is what its arguments carry, so that it is known even to who lost the id."""

    key: int
    kind: str
    time: int
    """When it may start at the earliest."""
    due: int
    """When it is due: later than `time` for a run_at in the past."""
    canceled: bool = False
    starts: dict[int, int] = field(default_factory=dict)
    """How often it started, by the attempt of the message."""
    finished: int = 0
    excuses: set[str] = field(default_factory=set)
    """The errors it may end with."""
    told_lost: set[int] = field(default_factory=set)
    """The attempts whose workers were said to be dead."""
    losses: int = 0
    """How often a worker of it died or stopped answering, at most."""
    may_be_canceled: bool = False
    """Somebody revoked it."""
    last: Row | None = None


@dataclass
class Model:
    """All jobs of one example."""

    retention: int
    jobs: dict[int, Job] = field(default_factory=dict)

    def started(self, job: Job, attempt: int, now: int, at_eta: bool, beside: bool) -> None:
        """A function's first line ran, for a message of this attempt."""
        if job.canceled:
            violated(5, f"job {job.key} ({job.kind}) started after it was cancelled")
        if now < job.time:
            violated(6, f"job {job.key} ({job.kind}) started {job.time - now} µs before its time")
        if at_eta and now < job.due:
            violated(6, f"job {job.key} ({job.kind}) started {job.due - now} µs before it was due")
        if job.last is not None and job.last.state in LIVE:
            claimed = job.last.state == "inProgress"
            if job.last.attempt != attempt + claimed:
                violated(5, f"a message of attempt {attempt} started {job.last}")
        if beside:
            violated(3, f"{job.kind} {job.key} runs twice at once")
        if job.last is not None and job.last.state in TERMINAL:
            violated(3 if job.kind == "mutation" else 4, f"job {job.key} ({job.kind}) started though it had ended")
        job.starts[attempt] = job.starts.get(attempt, 0) + 1
        if job.kind == "action" and sum(job.starts.values()) > 1:
            violated(4, f"action {job.key} started {sum(job.starts.values())} times")
        if job.kind in ("task", "late") and job.starts[attempt] > 1:
            violated(4, f"task {job.key} started {job.starts[attempt]} times at attempt {attempt}")

    def seen(self, rows: dict[int, Row], ledger: dict[int, int], now: int) -> None:
        """Compare with what the database shows now."""
        if Violation.raised is not None:
            raise Violation.raised  # somebody caught it: after a commit every error is
        for key in rows.keys() - self.jobs.keys():
            violated(1, f"row {rows[key]} exists, but no transaction that scheduled it has committed")
        for key in ledger.keys() - self.jobs.keys():
            violated(3, f"an effect of job {key}, which does not exist")
        for job in self.jobs.values():
            row = rows.get(job.key)
            if row is None:
                self._gone(job, now)
            else:
                self._row(job, row)
            self._effects(job, ledger.get(job.key, 0))

    def _gone(self, job: Job, now: int) -> None:
        if job.last is None:
            violated(1, f"job {job.key} was committed, but has no row")
        if job.last.state not in TERMINAL:
            violated(2, f"job {job.key} vanished while it was {job.last.state}")
        if (job.last.completed or 0) >= now - self.retention:
            violated(7, f"job {job.key} was pruned before its retention was over")

    def _row(self, job: Job, row: Row) -> None:
        last = job.last
        if last is not None and last.state in TERMINAL and row != last:
            violated(7, f"a terminal row changed: {last} -> {row}")
        if last is not None and last.state in LIVE:
            if row.state not in EDGES[last.state]:
                violated(7, f"no such edge: {last} -> {row}")
            if row.attempt < last.attempt:
                violated(7, f"the attempt went back: {last} -> {row}")
        if (row.state in LIVE) != (row.next_at is not None) or (row.state in LIVE) != (row.completed is None):
            violated(7, f"next_at is set iff live, completed_time iff not: {row}")
        if row.state in LIVE and row.losses >= 3:
            violated(7, f"it is run again though its worker died {row.losses} times: {row}")
        if row.scheduled != job.time:
            violated(6, f"job {job.key} was to run at {job.time}, its row says {row.scheduled}")
        if job.canceled and row.state != "canceled":
            violated(5, f"cancel returned True, but the row is {row}")
        if row.state == "canceled" and not (job.canceled or job.may_be_canceled):
            violated(2, f"nobody cancelled {row}")
        if row.state == "success" and not job.finished:
            violated(7, f"success without having run: {row}")
        if row.state == "failed" and row.tag not in job.excuses:
            violated(2, f"failed for no reason it had ({sorted(job.excuses)}): {row}")
        if row.state == "failed" and row.kind == "mutation" and row.tag == "WorkerLost" and len(job.told_lost) < 3:
            violated(2, f"failed after {len(job.told_lost)} deaths only: {row}")
        if row.state == "failed" and job.kind == "late" and row.tag == "WorkerLost" and job.losses < 3:
            violated(2, f"failed after {job.losses} losses only: {row}")
        if (row.state == "success" or row.tag in RAISED) and (row.completed or 0) < job.time:
            violated(6, f"it ended before its time, {job.time}: {row}")
        job.last = row

    def _effects(self, job: Job, count: int) -> None:
        expected = int(job.kind == "mutation" and job.last is not None and job.last.state == "success")
        if count != expected:
            violated(3, f"{count} effects instead of {expected} of job {job.key}: {job.last}")
