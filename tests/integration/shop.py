"""The app that the integration tests' workers run: each function leaves a mark in the table `marks`.

Environment: TEST_BROKER_URL, TEST_DATABASE_URL, TEST_WITHOUT (names of functions that this process does not define, or
defines otherwise), TEST_WITH ("mailer": a function asks for a service that nobody provides), TEST_RAN (the file where
`brittle` writes down that it ran; every mutation counts as brief then), TEST_GATHERS (messages that wait are gathered
whatever their rows took), TEST_CONFIG (JSON of more settings), and those
of `observing`.
"""

from __future__ import annotations

import json
import os
import time

import sqlalchemy as sa
from celery import Celery, Task, current_task
from pydantic import BaseModel

from confect_celery import (
    Confect,
    CronJob,
    DatabaseReader,
    DatabaseWriter,
    Duration,
    MutationRunner,
    ScheduledFunctionId,
    Scheduler,
)
from confect_celery.runtime import batch_run, brevity, gathering, sharing
from tests.integration import observing

metadata = sa.MetaData()
sa.Table(
    "marks",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("label", sa.String(200), nullable=False),
    sa.Column("at", sa.Float, nullable=False),
    sa.Column("row_id", sa.String(36)),
)

app = Celery("integration", broker=os.environ.get("TEST_BROKER_URL"), set_as_current=False)
app.conf.update(
    {
        "confect_database_url": os.environ.get("TEST_DATABASE_URL", "sqlite://"),
        # What is due in a second is published by who schedules it, what is due in three by a dispatcher.
        "confect_horizon": 2.8,
        "confect_poll_interval": 1.4,
        "confect_redelivery": 6,
        "broker_connection_retry_on_startup": True,
        "worker_send_task_events": True,
        "task_send_sent_event": True,
        "result_backend": os.environ.get("TEST_BROKER_URL"),
        **json.loads(os.environ.get("TEST_CONFIG", "{}")),
    }
)
if "TEST_RAN" in os.environ:
    brevity._RUNS = 0  # type: ignore[misc]
    brevity._BRIEF_SECONDS = sharing._LONGEST_SECONDS = batch_run.LONGEST_SECONDS = 60.0  # type: ignore[misc]
if "TEST_GATHERS" in os.environ:
    gathering._BRIEF_SECONDS = gathering._TOGETHER_SECONDS = 60.0  # type: ignore[misc]
confect = Confect(app, schema=metadata)
observing.install(confect)
g = confect.group("test")
WITHOUT = os.environ.get("TEST_WITHOUT", "").split(",")


class Label(BaseModel):
    label: str


class Slow(Label):
    seconds: float


class Size(BaseModel):
    size: int


class MarkError(Exception):
    """Declared by the functions that raise it."""

    def __init__(self, label: str) -> None:
        self.label = label
        super().__init__(f"cannot mark {label}")


@g.internal_mutation
def mark(args: Label, db: DatabaseWriter, me: ScheduledFunctionId | None) -> int:
    return int(str(db.table("marks").insert({"label": args.label, "at": time.time(), "row_id": me})))


@g.internal_mutation
def slow_mark(args: Slow, db: DatabaseWriter, me: ScheduledFunctionId | None) -> None:
    db.table("marks").insert({"label": args.label, "at": time.time(), "row_id": me})
    time.sleep(args.seconds)


@g.internal_mutation(errors=(MarkError,))
def mark_and_raise(args: Label, db: DatabaseWriter, scheduler: Scheduler) -> None:
    db.table("marks").insert({"label": args.label, "at": time.time()})
    scheduler.run_after(Duration.seconds(1), mark, Label(label=f"child of {args.label}"))
    raise MarkError(args.label)


@g.internal_action(errors=(MarkError,))
def act_and_raise(args: Label, scheduler: Scheduler, run_mutation: MutationRunner) -> None:
    run_mutation(mark, Label(label=args.label))
    scheduler.run_after(Duration.seconds(1), mark, Label(label=f"child of {args.label}"))
    raise MarkError(args.label)


@g.internal_action
def look(args: Label, run_mutation: MutationRunner, me: ScheduledFunctionId | None) -> dict[str, object]:
    """What the function sees of its own message."""
    request = current_task.request
    run_mutation(mark, args)
    return {"row": me, "task": request.id, "eta": request.eta, "root": request.root_id}


@g.internal_action
def slow_act(args: Slow, scheduler: Scheduler, run_mutation: MutationRunner) -> None:
    scheduler.run_after(Duration.seconds(1), mark, Label(label=f"{args.label} first child"))
    run_mutation(mark, Label(label=f"{args.label} started"))
    time.sleep(args.seconds)
    scheduler.run_after(Duration.seconds(1), mark, Label(label=f"{args.label} child"))
    run_mutation(mark, Label(label=f"{args.label} ended"))


@g.internal_mutation
def die(args: Label) -> None:
    os.kill(os.getpid(), 9)


@g.internal_mutation
def brittle(args: Label, db: DatabaseWriter, me: ScheduledFunctionId | None) -> None:
    """Brief, and says so in a file each time that it runs; the one that is poison dies."""
    with open(os.environ["TEST_RAN"], "a") as ran:
        ran.write(f"{args.label}\n")
    db.table("marks").insert({"label": args.label, "at": time.time(), "row_id": me})
    if args.label == "poison":
        os.kill(os.getpid(), 9)


@g.internal_action
def act_and_die(args: Label, run_mutation: MutationRunner) -> None:
    run_mutation(mark, Label(label=args.label))
    os.kill(os.getpid(), 9)


@g.internal_mutation(time_limit=Duration.seconds(2).to_timedelta())
def never_ends(args: Label) -> None:
    while True:
        time.sleep(0.1)


@g.query
def marks(db: DatabaseReader) -> list[str]:
    return [mark["label"] for mark in db.table("marks").order("asc").collect()]


if "gone" not in WITHOUT:

    @g.internal_mutation
    def gone(args: Label) -> None:
        raise AssertionError("a worker that defines it must not be part of the test")


if "changed" not in WITHOUT:

    @g.internal_mutation
    def changed(args: Label, db: DatabaseWriter) -> None:
        db.table("marks").insert({"label": args.label, "at": time.time()})

else:

    class Changed(BaseModel):
        number: int

    @g.internal_mutation
    def changed(args: Changed) -> None:  # type: ignore[no-redef]
        raise AssertionError("it must not be reached")


if "mailer" in os.environ.get("TEST_WITH", ""):

    class Mailer:
        """Nobody provides it."""

    @g.internal_action
    def send(args: Label, mailer: Mailer) -> None: ...


class HugeError(Exception):
    """Nobody declares it."""


@g.internal_mutation
def fail_with(args: Size) -> None:
    raise HugeError("y" * args.size + "\x00\ud800")


for name, seconds in json.loads(os.environ.get("TEST_CRONS", "{}")).items():
    confect.crons.add(CronJob(name, Duration.seconds(seconds), mark, {"label": name}))


def _mark_plain(label: str) -> None:
    with confect.writer() as db:
        db.table("marks").insert({"label": label, "at": time.time(), "row_id": current_task.request.id})


@app.task(name="plain.add", shared=False)
def add(x: int, y: int) -> int:
    _mark_plain(f"plain {x + y}")
    return x + y


@app.task(name="plain.flaky", bind=True, max_retries=2, shared=False)
def flaky(self: Task[..., str], label: str, failures: int) -> str:
    """Fails the first `failures` times; there are three tries."""
    _mark_plain(label)
    if self.request.retries < failures:
        raise self.retry(countdown=0.1, exc=MarkError(label))
    return label


@app.task(name="plain.replacing", bind=True, shared=False)
def replacing(self: Task[..., int], x: int) -> None:
    raise self.replace(add.s(x, 1))


@app.task(name="plain.die", shared=False)
def plain_die(label: str) -> None:
    _mark_plain(label)
    os.kill(os.getpid(), 9)


@app.task(name="plain.never_ends", time_limit=1, shared=False)
def plain_never_ends(label: str) -> None:
    _mark_plain(label)
    while True:
        time.sleep(0.1)


@app.task(name="plain.waits", shared=False)
def plain_waits(label: str) -> None:
    _mark_plain(label)
    time.sleep(60)


@app.task(name="plain.exits", shared=False)
def plain_exits() -> None:
    raise SystemExit(3)


@app.task(name="plain.header", bind=True, shared=False)
def header(self: Task[..., str], name: str) -> str:
    return str(self.request.get(name))
