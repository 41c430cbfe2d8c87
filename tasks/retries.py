"""Charging a payment, again and again with growing waits, until it works or the shop gives up.

Shows: an action that schedules itself anew, its attempt in its arguments; and a typed error for the end. Confect
never retries an action by itself, since only the shop knows whether trying twice is safe. Here it is: the gateway
knows payments by their id. The waits are 1, 2, 4, 8 and 16 minutes; each attempt is a row of its own, with its own
outcome, and the row before it as its parent.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from pydantic import BaseModel

from confect_celery import DatabaseWriter, MutationRunner, Scheduler
from tasks.app import confect
from tasks.delays import Delays
from tasks.errors import ShopError
from tasks.services import PaymentGateway, PaymentsDown

__all__ = ["MAX_RETRIES", "Charge", "MaxRetriesReached", "Order", "Ordered", "charge", "mark", "order"]

MAX_RETRIES: Final = 5

retries = confect.group("retries")


class Order(BaseModel):
    """What is to be paid."""

    cents: int


class Ordered(BaseModel):
    """The payment that came of it."""

    payment_id: str


class Charge(BaseModel):
    """One attempt at a payment; attempt 0 is the first."""

    payment_id: str
    cents: int
    attempt: int = 0


class Mark(BaseModel):
    """What became of a payment."""

    payment_id: str
    status: str


@dataclass(eq=False)
class MaxRetriesReached(ShopError):
    """The payment `payment_id` was given up after `attempts` attempts."""

    payment_id: str
    attempts: int

    def __str__(self) -> str:
        return f"Payment {self.payment_id} was given up after {self.attempts} attempts."


@retries.internal_mutation
def mark(args: Mark, db: DatabaseWriter) -> None:
    """Note what became of a payment."""
    db.table("payments").patch(args.payment_id, {"status": args.status})


@retries.internal_action(errors=(MaxRetriesReached,))
def charge(
    args: Charge, gateway: PaymentGateway, scheduler: Scheduler, run_mutation: MutationRunner, delays: Delays
) -> None:
    """Charge a payment; raises MaxRetriesReached at the last attempt."""
    try:
        gateway.charge(args.payment_id, args.cents)
    except PaymentsDown as error:
        if args.attempt >= MAX_RETRIES:
            run_mutation(mark, Mark(payment_id=args.payment_id, status="failed"))
            raise MaxRetriesReached(args.payment_id, args.attempt + 1) from error
        again = args.model_copy(update={"attempt": args.attempt + 1})
        scheduler.run_after(delays.backoff * 2**args.attempt, charge, again)
    else:
        run_mutation(mark, Mark(payment_id=args.payment_id, status="paid"))


@retries.mutation
def order(args: Order, db: DatabaseWriter, scheduler: Scheduler, delays: Delays) -> Ordered:
    """Place an order; its payment is charged a moment later, outside this transaction."""
    payment_id = db.table("payments").insert(args)
    scheduler.run_after(delays.mail, charge, Charge(payment_id=payment_id, cents=args.cents))
    return Ordered(payment_id=payment_id)
