"""The app whose workers are broken. What runs says so in a ledger outside the system, an append-only file.

Environment: TEST_BROKER_URL, TEST_DATABASE_URL, TEST_CONFIG (JSON of more settings), TEST_LEDGER (the file),
TEST_EPOCH (when this machine's monotonic clock was 0), TEST_SHARES (whether mutations of a batch share a transaction:
"always" or "never", however brief they are), TEST_CRASH (the directory of a plan for `crash`).
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from celery import Celery, Task
from pydantic import BaseModel

from confect_celery import Confect, DatabaseWriter, ScheduledFunctionId
from confect_celery.runtime import brevity, sharing
from tests.faults import crash, held_seams

metadata = sa.MetaData()
effects = sa.Table(
    "effects",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("job", sa.String(40), nullable=False),
)

app = Celery("faults", broker=os.environ.get("TEST_BROKER_URL"), set_as_current=False)
app.conf.update(
    {
        "confect_database_url": os.environ.get("TEST_DATABASE_URL", "sqlite://"),
        "broker_connection_retry_on_startup": True,
        "worker_send_task_events": False,
        "task_ignore_result": True,
        **json.loads(os.environ.get("TEST_CONFIG", "{}")),
    }
)
if "TEST_SHARES" in os.environ:  # else as the machine's speed will have it
    brevity._RUNS = 0 if os.environ["TEST_SHARES"] == "always" else sys.maxsize  # type: ignore[misc]
    brevity._BRIEF_SECONDS = sharing._LONGEST_SECONDS = 60.0  # type: ignore[misc]
confect = Confect(app, schema=metadata)
g = confect.group("faults")
LEDGER = os.environ.get("TEST_LEDGER", os.devnull)
_EPOCH = float(os.environ.get("TEST_EPOCH", "0"))


def now() -> float:
    """The true time, also where this process' clock is wrong: no fault touches the monotonic one."""
    return _EPOCH + time.monotonic()


def tell(event: str, job: str) -> None:
    """One line, written at once and whole."""
    line = f"{now():.6f} {event} {job}\n".encode()
    ledger = os.open(LEDGER, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(ledger, line)
    finally:
        os.close(ledger)


class Job(BaseModel):
    job: str


def _begin(job: str, id: Any) -> None:
    tell("start", job)
    crash.hit("function started", str(id))


def _end(job: str, id: Any) -> None:
    crash.hit("function ended", str(id))
    tell("end", job)


@g.internal_mutation
def mutation(args: Job, db: DatabaseWriter, me: ScheduledFunctionId | None) -> None:
    _begin(args.job, me)
    db.table("effects").insert({"job": args.job})
    _end(args.job, me)


@g.internal_action
def action(args: Job, me: ScheduledFunctionId | None) -> None:
    _begin(args.job, me)
    _end(args.job, me)


@app.task(name="faults.plain", bind=True, shared=False)
def plain(self: Task[..., None], job: str, seconds: float = 0) -> None:
    _begin(job, self.request.id)
    time.sleep(seconds)
    _end(job, self.request.id)


@app.task(name="faults.retrying", bind=True, shared=False, max_retries=2)
def retrying(self: Task[..., None], job: str) -> None:
    _begin(job, self.request.id)
    if self.request.retries == 0:
        raise self.retry(countdown=0.1)
    _end(job, self.request.id)


@app.task(name="faults.late", bind=True, shared=False, acks_late=True, reject_on_worker_lost=True)
def late(self: Task[..., None], job: str) -> None:
    _begin(job, self.request.id)
    _end(job, self.request.id)


@app.task(name="native.job", shared=False, confect_capture="off")
def native(job: str) -> None:
    """Celery alone, beside it."""
    tell("start", job)
    tell("end", job)


FUNCTIONS = {"mutation": mutation, "action": action, "plain": plain, "retrying": retrying, "late": late}

if "TEST_CRASH" in os.environ:
    crash.arm(Path(os.environ["TEST_CRASH"]))
    held_seams.arm(Path(os.environ["TEST_CRASH"]))
