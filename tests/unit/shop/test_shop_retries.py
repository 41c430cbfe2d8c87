"""Retries with exponential backoff."""

from __future__ import annotations

import pickle
from dataclasses import dataclass, field

from confect_celery import DateTime, Duration, StateKind
from confect_celery.testing import Harness
from tasks.retries import MaxRetriesReached, Order, charge, order
from tasks.services import PaymentGateway, PaymentsDown


@dataclass
class Flaky(PaymentGateway):
    """Fails the first `failures` times."""

    failures: int
    calls: list[str] = field(default_factory=list)

    def charge(self, payment_id: str, cents: int) -> None:
        self.calls.append(payment_id)
        if len(self.calls) <= self.failures:
            raise PaymentsDown("no answer")


def place(shop: Harness, failures: int) -> str:
    shop.provide(PaymentGateway, Flaky(failures))
    return shop.confect.run_mutation(order, Order(cents=100)).payment_id


def status(shop: Harness, payment_id: str) -> str:
    with shop.confect.reader() as db:
        return str(db.table("payments").get(payment_id).status)


def test_charges_at_the_first_attempt(shop: Harness) -> None:
    payment_id = place(shop, failures=0)
    (row,) = shop.run_all()
    assert row.state.kind is StateKind.SUCCESS
    assert status(shop, payment_id) == "paid"


def test_waits_twice_as_long_each_time(shop: Harness, now: DateTime) -> None:
    payment_id = place(shop, failures=3)
    rows = shop.run_all()
    first = now + Duration.seconds(1)
    minutes = [0, 1, 1 + 2, 1 + 2 + 4]
    assert [row.scheduled_time for row in rows] == [first + Duration.minutes(n) for n in minutes]
    assert [row.args["attempt"] for row in rows] == [0, 1, 2, 3]
    assert [row.parent_id for row in rows] == [None, *[row.id for row in rows[:-1]]]
    assert status(shop, payment_id) == "paid"


def test_gives_up_with_a_typed_error(shop: Harness) -> None:
    payment_id = place(shop, failures=100)
    rows = shop.run_all()
    assert [row.state.kind for row in rows] == [StateKind.SUCCESS] * 5 + [StateKind.FAILED]
    error = rows[-1].state.error
    assert error is not None
    assert error.tag == "MaxRetriesReached"
    assert error.message == f"Payment {payment_id} was given up after 6 attempts."
    assert error.data == {"payment_id": payment_id, "attempts": 6}
    assert status(shop, payment_id) == "failed"


def test_a_cancelled_retry_ends_the_chain(shop: Harness) -> None:
    payment_id = place(shop, failures=100)
    shop.advance(Duration.seconds(1))
    shop.run_due()
    retry = shop.assert_scheduled(charge, {"payment_id": payment_id, "cents": 100, "attempt": 1})
    assert shop.confect.scheduler.cancel(retry.id)
    assert shop.run_all() == []
    assert status(shop, payment_id) == "open"


def test_the_error_survives_pickling_however_it_was_made() -> None:
    error = pickle.loads(pickle.dumps(MaxRetriesReached(payment_id="p1", attempts=6)))
    assert (error.payment_id, error.attempts) == ("p1", 6)
