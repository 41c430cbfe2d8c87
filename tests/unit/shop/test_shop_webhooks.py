"""Webhooks: checked and stored at once, processed later, each event once."""

from __future__ import annotations

from typing import Any

import pytest

from confect_celery import DateTime, Duration, StateKind
from confect_celery.testing import Harness
from tasks.webhooks import InvalidPayload, Webhook, process, receive

PAID = {"id": "evt_1", "kind": "payment.paid", "data": {"payment_id": "p1"}}


@pytest.fixture(autouse=True)
def payment(shop: Harness) -> None:
    with shop.confect.writer() as db:
        db.table("payments").insert({"id": "p1", "cents": 100})


def take(shop: Harness, payload: Any) -> str:
    return str(shop.confect.run_action(receive, Webhook(payload=payload)).function_id)


def payment_status(shop: Harness) -> str:
    with shop.confect.reader() as db:
        return str(db.table("payments").get("p1").status)


def test_is_stored_at_once_and_processed_after_30_seconds(shop: Harness, now: DateTime) -> None:
    id = take(shop, PAID)
    assert shop.assert_scheduled(process, {"event_id": "evt_1"}, at=now + Duration.seconds(30)).id == id
    with shop.confect.reader() as db:
        assert db.table("webhook_events").get("evt_1").data == {"payment_id": "p1"}
    assert payment_status(shop) == "open"
    shop.run_all()
    assert payment_status(shop) == "paid"


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        ({}, "id: Field required"),
        ({**PAID, "data": "p1"}, "data: Input should be a valid dictionary"),
        (["not", "an", "event"], "payload: "),
        (None, "payload: "),
    ],
)
def test_an_invalid_payload_is_refused_and_leaves_nothing(shop: Harness, payload: Any, reason: str) -> None:
    with pytest.raises(InvalidPayload) as caught:
        take(shop, payload)
    assert caught.value.reason.startswith(reason)
    assert shop.scheduled(state=None) == []
    with shop.confect.reader() as db:
        assert db.table("webhook_events").count() == 0


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        ({**PAID, "kind": "payment.lost"}, "unknown kind 'payment.lost'"),
        ({**PAID, "data": {}}, "data.payment_id: Field required"),
    ],
)
def test_what_cannot_be_processed_fails_with_the_typed_error(shop: Harness, payload: Any, reason: str) -> None:
    take(shop, payload)
    (row,) = shop.run_all()
    assert row.state.kind is StateKind.FAILED
    error = row.state.error
    assert error is not None
    assert (error.tag, error.data) == ("InvalidPayload", {"reason": reason})
    with shop.confect.reader() as db:
        assert not db.table("webhook_events").get("evt_1").processed
    assert payment_status(shop) == "open"


def test_a_second_delivery_of_an_event_does_nothing_more(shop: Harness) -> None:
    take(shop, PAID)
    shop.run_all()
    with shop.confect.writer() as db:
        db.table("payments").patch("p1", {"status": "refunded"})
    take(shop, PAID)
    assert [row.state.kind for row in shop.run_all()] == [StateKind.SUCCESS]
    assert payment_status(shop) == "refunded"
