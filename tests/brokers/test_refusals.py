"""RabbitMQ says so when it does not take a message; then the row goes back to the table, and is published again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from kombu import Connection, Exchange, Queue

from confect_celery import DateTime, Duration
from confect_celery.runtime import CeleryTransport
from confect_celery.store import Delivery
from tests.brokers.rig import Rig
from tests.support.brokers import Brokers

NEAR = Duration.seconds(1)
ELSEWHERE = {"exchange": "elsewhere", "exchange_type": "topic", "routing_key": "else.where"}
ROUTED = {"task_routes": {"internal/mail/*": ELSEWHERE}}


@pytest.fixture
def url(brokers: Brokers) -> str:
    return brokers.url("rabbitmq")


@pytest.fixture
def channel(url: str) -> Iterator[Any]:
    with Connection(url) as connection:
        yield connection.default_channel


def _given_back(rig: Rig, id: str) -> bool:
    """Whether the row is to be published again within seconds; a message believed sent rests for half a minute."""
    row = rig.row(id)
    assert row.state.kind == "pending" and row.next_at is not None
    return row.next_at < DateTime.now() + Duration.seconds(5)


def test_a_missing_exchange(new_rig: Callable[..., Rig], url: str, caplog: pytest.LogCaptureFixture) -> None:
    rig = new_rig("rabbitmq", url, **ROUTED)
    id = rig.schedule(rig.shop.send, "missing", NEAR)
    assert _given_back(rig, id)
    assert f"Could not publish internal/mail/send[{id}]" in caplog.text and "elsewhere" in caplog.text
    # The next one is not taken for the refused one.
    taken = rig.schedule(rig.shop.mark, "taken", NEAR)
    assert not _given_back(rig, taken)

    # A worker that declares the exchange and a queue on it brings the rest about.
    later = new_rig("rabbitmq", url, **ROUTED, task_queues={"celery": {}, "there": ELSEWHERE})
    later.env["TEST_DATABASE_URL"] = rig.env["TEST_DATABASE_URL"]
    later.worker()
    rig.succeeded([id, taken], within=15)


def test_an_exchange_that_leads_nowhere(new_rig: Callable[..., Rig], url: str, channel: Any) -> None:
    exchange = Exchange("elsewhere", "topic")(channel)
    exchange.declare()
    rig = new_rig("rabbitmq", url, **ROUTED)
    id = rig.schedule(rig.shop.send, "nowhere", NEAR)
    assert _given_back(rig, id)
    taken = rig.schedule(rig.shop.mark, "taken", NEAR)
    assert not _given_back(rig, taken)


def test_a_queue_that_is_full(new_rig: Callable[..., Rig], url: str) -> None:
    full = {"queue_arguments": {"x-max-length": 1, "x-overflow": "reject-publish"}}
    rig = new_rig("rabbitmq", url, task_queues={"celery": full})
    ids = [rig.schedule(rig.shop.mark, f"job {n}", NEAR) for n in range(3)]
    assert [_given_back(rig, id) for id in ids] == [False, True, True]
    rig.worker()
    rig.succeeded(ids, within=20)
    assert sorted(mark.label for mark in rig.marks()) == ["job 0", "job 1", "job 2"]


def test_a_queue_that_was_deleted_is_declared_again(new_rig: Callable[..., Rig], url: str, channel: Any) -> None:
    rig = new_rig("rabbitmq", url)
    lost = rig.schedule(rig.shop.mark, "lost with its queue", NEAR)
    queue = Queue("celery")(channel)
    assert queue.delete() == 1
    id = rig.schedule(rig.shop.mark, "returned", NEAR)
    assert _given_back(rig, id) and not _given_back(rig, lost)
    after = rig.schedule(rig.shop.mark, "after", NEAR)
    assert not _given_back(rig, after) and queue.queue_declare(passive=True).message_count == 1


def test_a_shop_may_do_without(new_rig: Callable[..., Rig], url: str) -> None:
    rig = new_rig("rabbitmq", url, **ROUTED, broker_transport_options={"confirm_publish": False})
    assert not _given_back(rig, rig.schedule(rig.shop.send, "unheard", NEAR))


def test_the_shops_own_publishing_is_left_alone(new_rig: Callable[..., Rig], url: str) -> None:
    rig = new_rig("rabbitmq", url)
    rig.schedule(rig.shop.mark, "ours", NEAR)
    with rig.app.producer_or_acquire() as producer:
        assert producer.connection.transport_options.get("confirm_publish") is None
        assert not producer.channel.connection.confirm_publish


def test_what_was_refused_is_raised(new_rig: Callable[..., Rig], url: str) -> None:
    rig = new_rig("rabbitmq", url, **ROUTED)
    now = DateTime.now()
    delivery = Delivery("an-id", rig.shop.send.name, "mutation", {"label": "x"}, now, 0, {}, None)
    transport = CeleryTransport(rig.app, rig.confect.settings)
    for _ in range(3):
        with pytest.raises(Exception, match="no exchange 'elsewhere'"):
            transport.publish(delivery)
