"""A worker's channel on Redis makes one client, however many messages come; every other channel is left as it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from celery.contrib.testing.worker import start_worker
from kombu import Connection, Consumer, Queue
from kombu.transport import redis as kombu_redis

from confect_celery.runtime.kept_client import keep_client
from tests.brokers.rig import Rig
from tests.support.brokers import Brokers
from tests.support.waiting import wait_for


@contextmanager
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """The clients that are made meanwhile, by whichever channel."""
    made: list[Any] = []
    make = kombu_redis.Channel._get_client

    def get_client(channel: Any) -> Any:
        kind = make(channel)

        def client(**given: Any) -> Any:
            made.append(kind(**given))
            return made[-1]

        return client

    with monkeypatch.context() as patch:
        patch.setattr(kombu_redis.Channel, "_get_client", get_client)
        yield made


def exchange(channel: Any, count: int) -> list[Any]:
    """Publish so many messages, and get and acknowledge them."""
    queue, got = Queue("kept"), []

    def receive(body: Any, message: Any) -> None:
        got.append(body)
        message.ack()

    with Connection(channel.connection.client.as_uri(include_password=True)) as other:
        producer = other.Producer()
        for n in range(count):
            producer.publish(n, routing_key="kept", declare=[queue])
        with Consumer(channel, [queue], callbacks=[receive]):
            while len(got) < count:
                channel.connection.client.drain_events(timeout=10)
    return got


@pytest.mark.parametrize("server", ["redis", "valkey"])
def test_one_client_serves_all_messages(brokers: Brokers, monkeypatch: pytest.MonkeyPatch, server: str) -> None:
    with counted(monkeypatch) as made, Connection(brokers.url(server)) as connection:
        channel: Any = connection.channel()
        assert keep_client(channel)
        exchange(channel, 3)
        before = len([each for each in made if each.connection_pool is channel.pool])
        assert exchange(channel, 20) == list(range(20))
        assert len([each for each in made if each.connection_pool is channel.pool]) == before
        with channel.conn_or_acquire() as client:
            left = client.hlen(channel.unacked_key), client.zcard(channel.unacked_index_key)
            assert left == (0, 0), "each was acknowledged"


def test_a_channel_with_another_pool_gets_another_client(brokers: Brokers) -> None:
    with Connection(brokers.url("redis")) as connection:
        channel: Any = connection.channel()
        assert keep_client(channel)
        assert keeps(channel)
        with channel.conn_or_acquire() as first:
            channel._disconnect_pools()  # as when its connection is lost
        with channel.conn_or_acquire() as third:
            assert third is not first and third.connection_pool is channel.pool
            assert third.ping()
        assert channel._create_client(asynchronous=True).connection_pool is channel.async_pool


def keeps(channel: Any) -> bool:
    """Whether it has one client for all."""
    with channel.conn_or_acquire() as one, channel.conn_or_acquire() as another:
        return one is another


class _Another(kombu_redis.Channel):
    """A shop's or a library's own."""


def test_no_other_channel_is_touched(brokers: Brokers) -> None:
    with Connection(brokers.url("redis")) as connection, Connection("memory://") as memory:
        for channel in (_Another(connection.connection), memory.channel()):
            known = set(vars(channel))
            assert not keep_client(channel)
            assert set(vars(channel)) == known


def test_workers_have_it(new_rig: Callable[..., Rig]) -> None:
    """Also after they had to connect anew: that is another channel."""
    rig = new_rig("redis", worker_cancel_long_running_tasks_on_connection_loss=True)
    with start_worker(rig.app, pool="solo", perform_ping_check=False) as worker:
        consuming: Any = worker.consumer  # type: ignore[attr-defined]  # the stubs forget it
        first = consuming.task_consumer.channel
        assert keeps(first)
        rig.succeeded([rig.schedule(rig.shop.mark, "before")])

        rig.cut_redis()
        second = wait_for(lambda: (now := consuming.task_consumer) and now.channel is not first and now.channel)
        wait_for(lambda: keeps(second))
        rig.succeeded([rig.schedule(rig.shop.mark, "after")])
