import os
import signal
import time
from pathlib import Path

from celery import Task
from celery.exceptions import Reject
from pydantic import BaseModel

from . import journal
from .celeryapp import app, confect


@app.task(name="orders.price")
def price(quantity, each):
    journal.write(f"price {quantity}*{each}")
    return quantity * each


@app.task(name="orders.total")
def total(prices, shipping=0):
    journal.write(f"total {sum(prices)}")
    return sum(prices) + shipping


@app.task(name="orders.invoice")
def invoice(amount, customer):
    journal.write(f"invoice {customer} {amount}")
    return f"{customer} owes {amount}"


@app.task(name="orders.apologise")
def apologise(request, exc, traceback):
    journal.write(f"sorry {request.id} {type(exc).__name__}")


@app.task(name="orders.break_down")
def break_down(customer):
    raise ValueError(customer)


@app.task(name="orders.pack", bind=True)
def pack(self, order):
    journal.write(f"pack {order}")
    return self.replace(price.s(order, 10))


@app.task(name="orders.pack_many", bind=True)
def pack_many(self, order):
    return self.replace(price.s(order, 10) | invoice.s("chain"))


class Ship(Task):
    """Class-based, as before decorators."""

    name = "orders.ship"

    def run(self, order, *, express=False):
        journal.write(f"ship {order} {express}")
        return self.name


app.register_task(Ship())


class ShipAbroad(Ship):
    name = "orders.ship_abroad"


app.register_task(ShipAbroad())


@app.task(name="orders.fragile", bind=True, acks_late=True, reject_on_worker_lost=True)
def fragile(self, order, deaths):
    journal.write(f"fragile {order}")
    so_far = sum(what == f"fragile {order}" for _, what in journal.read(_journal()))
    if so_far <= deaths:
        os.kill(os.getpid(), signal.SIGKILL)
    return so_far


@app.task(name="orders.late", acks_late=True)
def late(order, seconds):
    journal.write(f"late {order}")
    time.sleep(seconds)
    return "done"


@app.task(name="orders.brittle")
def brittle(order):
    journal.write(f"brittle {order}")
    os.kill(os.getpid(), signal.SIGKILL)


@app.task(name="orders.refuse", bind=True, acks_late=True)
def refuse(self, order, times):
    journal.write(f"refuse {order}")
    so_far = sum(what == f"refuse {order}" for _, what in journal.read(_journal()))
    if times < 0 or so_far <= times:
        raise Reject("not today", requeue=times >= 0)
    return so_far


@app.task(name="orders.endless", time_limit=1)
def endless(order):
    journal.write(f"endless {order}")
    while True:
        time.sleep(0.1)


@app.task(name="orders.patient", soft_time_limit=1)
def patient(order):
    journal.write(f"patient {order}")
    time.sleep(30)


@app.task(name="orders.remind", bind=True)
def remind(self, order):
    """Starts a delayed task of its own."""
    result = price.apply_async((order, 1), countdown=2)
    return result.id


def _journal():
    return Path(os.environ["BOOKSTORE_JOURNAL"])


stock = confect.group("stock")


class Shelf(BaseModel):
    shelf: str


@stock.internal_action
def sweep(args: Shelf) -> None:
    """The first function that the shop wrote for Confect; its beat entry stayed as it was."""
    journal.write(f"sweep {args.shelf}")
