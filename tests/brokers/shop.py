"""The app that the broker tests' workers run: each function leaves a mark that tells where its message came from.

Environment: TEST_BROKER_URL, TEST_DATABASE_URL, TEST_CONFIG (JSON of more settings), TEST_GATHERS (messages that wait
are gathered whatever their rows took).
"""

from __future__ import annotations

import json
import os
import time

import sqlalchemy as sa
from celery import Celery, current_task
from pydantic import BaseModel

from confect_celery import Confect, DatabaseWriter
from confect_celery.runtime import gathering

metadata = sa.MetaData()
sa.Table(
    "marks",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("label", sa.String(200), nullable=False),
    sa.Column("at", sa.Float, nullable=False),
    sa.Column("worker", sa.String(100), nullable=False),
    sa.Column("queue", sa.String(100)),
    sa.Column("exchange", sa.String(100)),
    sa.Column("priority", sa.Integer),
)

app = Celery("brokers", broker=os.environ.get("TEST_BROKER_URL"), set_as_current=False)
app.conf.update(
    {
        "confect_database_url": os.environ.get("TEST_DATABASE_URL", "sqlite://"),
        # What is due in a second is published by who schedules it, what is due in three by a dispatcher.
        "confect_horizon": 2.8,
        "confect_poll_interval": 1.4,
        "broker_connection_retry_on_startup": True,
        "task_ignore_result": True,
        **json.loads(os.environ.get("TEST_CONFIG", "{}")),
    }
)
if "TEST_GATHERS" in os.environ:
    gathering._BRIEF_SECONDS = gathering._TOGETHER_SECONDS = 60.0  # type: ignore[misc]
confect = Confect(app, schema=metadata)
test = confect.group("test")
mail = confect.group("mail")


class Label(BaseModel):
    label: str


class Slow(Label):
    seconds: float


def leave_mark(db: DatabaseWriter, label: str) -> None:
    request = current_task.request
    came = request.delivery_info
    db.table("marks").insert(
        {
            "label": label,
            "at": time.time(),
            "worker": request.hostname,
            "queue": came["routing_key"],
            "exchange": came["exchange"],
            "priority": came["priority"],
        }
    )


@test.internal_mutation
def mark(args: Label, db: DatabaseWriter) -> None:
    leave_mark(db, args.label)


@test.internal_action
def hold(args: Slow) -> None:
    """Keeps a process of the pool busy."""
    with confect.writer() as db:
        leave_mark(db, args.label)
    time.sleep(args.seconds)


@test.internal_mutation(queue="special")
def special(args: Label, db: DatabaseWriter) -> None:
    leave_mark(db, args.label)


@test.internal_mutation(priority=9)
def nine(args: Label, db: DatabaseWriter) -> None:
    leave_mark(db, args.label)


@test.internal_mutation(priority=0)
def nought(args: Label, db: DatabaseWriter) -> None:
    leave_mark(db, args.label)


@mail.internal_mutation
def send(args: Label, db: DatabaseWriter) -> None:
    leave_mark(db, args.label)


@app.task(name="plain.mark", shared=False)
def plain_mark(label: str) -> None:
    with confect.writer() as db:
        leave_mark(db, label)
