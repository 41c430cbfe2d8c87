"""The app under measurement, ours and native Celery's alike: trivial tasks that only say when they start.

Environment: BENCH_BROKER, BENCH_DATABASE (none: native Celery alone), BENCH_CONF (JSON of more settings), BENCH_STARTS,
BENCH_READY (a file that appears when the worker is ready).
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any
from uuid import uuid4

import sqlalchemy as sa
from celery import Celery
from celery.signals import worker_ready
from pydantic import BaseModel

from bench.record import record
from confect_celery import Confect, DatabaseWriter

__all__ = ["N", "app", "confect", "functions", "orders", "plain", "tables"]

app = Celery("bench", broker=os.environ.get("BENCH_BROKER", "memory://"), set_as_current=False)
app.conf.update(
    {
        "broker_connection_retry_on_startup": True,
        "task_ignore_result": True,
        **json.loads(os.environ.get("BENCH_CONF", "{}")),
    }
)

tables = sa.MetaData()
orders = sa.Table(
    "bench_orders",
    tables,
    sa.Column("id", sa.String(36), primary_key=True),
    sa.Column("number", sa.Integer, nullable=False),
    sa.Column("note", sa.Text, nullable=False),
)


class N(BaseModel):
    n: int


@app.task(name="bench.plain", shared=False)  # several shops live in one process
def plain(n: int) -> None:
    record(n)


def mutation(args: N, db: DatabaseWriter) -> None:
    """In the transaction that ends its row."""
    record(args.n)


def writing_mutation(args: N, db: DatabaseWriter) -> None:
    """It writes a row of the shop's, as most do."""
    record(args.n)
    db.table("bench_orders").insert({"id": str(uuid4()), "number": args.n, "note": "paid"})


def action(args: N) -> None:
    """Claimed, and then outside any transaction."""
    record(args.n)


confect: Any = None
functions: dict[str, Any] = {"task": plain}
if os.environ.get("BENCH_DATABASE"):
    app.conf.confect_database_url = os.environ["BENCH_DATABASE"]
    confect = Confect(app, schema=tables)
    group = confect.group("bench")
    functions["mutation"] = group.internal_mutation(mutation)
    functions["writing mutation"] = group.internal_mutation(writing_mutation)
    functions["action"] = group.internal_action(action)


@worker_ready.connect(weak=False)
def _ready(**_: object) -> None:
    if "BENCH_READY" in os.environ:
        Path(os.environ["BENCH_READY"]).touch()
