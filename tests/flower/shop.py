"""The app whose jobs are looked at in Flower.

Environment: TEST_BROKER_URL, TEST_DATABASE_URL, TEST_CONFIG (JSON of more settings).
"""

from __future__ import annotations

import json
import os
import time

from celery import Celery, Task
from pydantic import BaseModel

from confect_celery import Confect

app = Celery("flower_shop", broker=os.environ.get("TEST_BROKER_URL"), set_as_current=False)
app.conf.update(
    {
        "confect_database_url": os.environ.get("TEST_DATABASE_URL", "sqlite://"),
        "broker_connection_retry_on_startup": True,
        "worker_send_task_events": True,
        "task_ignore_result": True,
        **json.loads(os.environ.get("TEST_CONFIG", "{}")),
    }
)
confect = Confect(app)
orders = confect.group("orders")


class Order(BaseModel):
    order_id: str


class NoSuchOrder(Exception):
    """Declared by the function that raises it."""


@orders.internal_mutation
def remind(args: Order) -> str:
    return f"reminded of {args.order_id}"


@orders.internal_action(errors=(NoSuchOrder,))
def refund(args: Order) -> None:
    raise NoSuchOrder(args.order_id)


@orders.internal_action
def export(args: Order) -> None:
    """Runs until it is terminated."""
    while True:
        time.sleep(0.1)


@app.task(name="shop.call_bank", bind=True, max_retries=3, shared=False)
def call_bank(self: Task[..., str], order_id: str) -> str:
    """Fails once."""
    if not self.request.retries:
        raise self.retry(countdown=3, exc=NoSuchOrder(order_id))
    return order_id


@app.task(name="shop.pack", shared=False)
def pack(order_id: str) -> None:
    """Runs until it is terminated."""
    while True:
        time.sleep(0.1)
