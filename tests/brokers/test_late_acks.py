"""On Redis, a message of ours that is done is told together with the next one that comes, and in time without one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import redis
from celery.contrib.testing.worker import start_worker
from kombu import Connection, Consumer, Queue
from kombu.asynchronous import Hub

from confect_celery.runtime.batches import BATCH_HEADER, BATCH_TASK
from confect_celery.runtime.late_acks import LateAcks
from confect_celery.runtime.messages import ATTEMPT_HEADER
from tests.brokers.rig import Rig
from tests.support.brokers import Brokers
from tests.support.waiting import wait_for

OURS = {ATTEMPT_HEADER: 1}
BATCH = {"task": BATCH_TASK, BATCH_HEADER: []}
QUEUE = Queue("late")


class Taking:
    """A channel that takes messages; by time only what `turn()` tells, which a worker's loop does between events."""

    def __init__(self, url: str) -> None:
        self.connection = Connection(url)
        self.channel: Any = self.connection.channel()
        self.hub = Hub()
        self.got: list[Any] = []
        self.acks = LateAcks(self.channel, self.hub)
        self.seen = redis.Redis.from_url(url, decode_responses=True)
        self._consumer = Consumer(self.channel, [QUEUE], callbacks=[lambda _body, message: self.got.append(message)])
        self._consumer.consume()
        self.acks.begin([])

    def take(self, headers: dict[str, Any]) -> Any:
        """Publish one and take it."""
        before = len(self.got)
        with Connection(self.connection.as_uri(include_password=True)) as other:
            other.Producer().publish("", routing_key="late", headers=headers, declare=[QUEUE])
        while len(self.got) == before:
            self.connection.drain_events(timeout=10)
        return self.got[-1]

    def turn(self) -> bool:
        """One turn of the loop."""
        self.hub.fire_timers(propagate=self.connection.connection_errors)
        return True

    def noted(self) -> set[str]:
        """What Redis takes for taken and not done."""
        tags = set(self.seen.hkeys(self.channel.unacked_key))
        assert tags == set(self.seen.zrange(self.channel.unacked_index_key, 0, -1))
        return tags

    @contextmanager
    def no_connections(self) -> Iterator[Callable[[], int]]:
        """Nobody else gets one meanwhile; what it gives tells how many were refused."""

        def all_refused() -> int:
            return int(self.seen.info("stats")["rejected_connections"])

        before = all_refused()
        self.channel._disconnect_pools()
        self.seen.config_set("maxclients", 1)
        try:
            yield lambda: all_refused() - before
        finally:
            self.seen.config_set("maxclients", 100)


@pytest.fixture(params=["redis", "valkey"])
def taking(request: pytest.FixtureRequest, brokers: Brokers) -> Iterator[Taking]:
    server = brokers.new(request.param)  # of its own: connections are killed
    server.start()
    it = Taking(server.url())
    try:
        yield it
    finally:
        it.connection.close()
        it.seen.close()
        it.hub.close()
        server.close()


def is_late(channel: Any) -> bool:
    return bool({"ack", "append", "pipe_or_acquire"} & set(vars(channel.qos)))


def tags(*messages: Any) -> set[str]:
    return {message.delivery_tag for message in messages}


@pytest.mark.parametrize("headers", [OURS, BATCH], ids=["one", "batch"])
def test_it_is_told_with_the_next_one(taking: Taking, headers: dict[str, Any]) -> None:
    first = taking.take(headers)
    first.ack()
    assert first.acknowledged and not taking.channel.qos._delivered.keys() - taking.channel.qos._dirty
    assert taking.noted() == tags(first)
    second = taking.take(headers)
    assert taking.noted() == tags(second) and not taking.acks.waiting


def test_without_a_next_one_it_is_told_in_time(taking: Taking) -> None:
    first, second = taking.take(OURS), taking.take(OURS)
    first.ack()
    second.ack()
    wait_for(lambda: taking.turn() and not taking.noted(), within=5)
    taking.take(OURS).ack()
    wait_for(lambda: taking.turn() and not taking.noted(), within=5)


@pytest.mark.parametrize(
    "headers",
    [{}, {"task": "mail"}, {BATCH_HEADER: []}, {ATTEMPT_HEADER: "1"}, {ATTEMPT_HEADER: -1}, {**OURS, "id": ["x"]}],
    ids=str,
)
def test_those_of_others_are_told_at_once(taking: Taking, headers: dict[str, Any]) -> None:
    ours = taking.take(OURS)
    ours.ack()
    other = taking.take(headers)
    assert taking.noted() == tags(other)
    other.ack()
    assert taking.noted() == set()


def test_so_is_what_another_thread_acknowledges(taking: Taking) -> None:
    thread = threading.Thread(target=taking.take(OURS).ack)
    thread.start()
    thread.join()
    assert taking.noted() == set() and not taking.acks.waiting


def test_a_rejected_one_is_kombus_matter(taking: Taking) -> None:
    taking.take(OURS).reject()
    assert taking.noted() == set()
    taking.take(OURS).reject(requeue=True)
    assert taking.noted() == set() and taking.seen.llen("late") == 1


def test_what_the_next_one_could_not_take_along_is_told_in_time(taking: Taking) -> None:
    first, second = taking.take(OURS), taking.take(OURS)
    first.ack()
    second._raw = object()
    with pytest.raises(TypeError):
        taking.channel.qos.append(second, "another")
    assert list(taking.acks.waiting) == [first.delivery_tag]
    wait_for(lambda: taking.turn() and taking.noted() == tags(second), within=5)


def test_while_redis_is_away_it_waits_and_raises_nothing(taking: Taking, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("confect_celery.runtime.late_acks._AGAIN_SECONDS", 0.02)
    first = taking.take(OURS)
    with taking.no_connections() as refused:
        first.ack()
        wait_for(lambda: taking.turn() and refused() > 2, within=5)
        assert taking.noted() == tags(first)
    wait_for(lambda: taking.turn() and not taking.noted(), within=5)


@pytest.mark.parametrize("told", [True, False], ids=["tried", "not tried"])
def test_what_was_not_told_is_told_on_the_channel_after_it(taking: Taking, told: bool) -> None:
    first = taking.take(OURS)
    first.ack()
    with taking.no_connections() as refused:
        untold = taking.acks.end(tell=told)
        assert bool(refused()) is told
    assert list(untold) == [first.delivery_tag] and not is_late(taking.channel)

    later = LateAcks(taking.connection.channel(), taking.hub)
    later.begin(untold)
    wait_for(lambda: taking.turn() and not taking.noted(), within=5)
    assert not later.end(tell=True)


def test_at_the_end_all_is_told_and_the_channel_left_to_itself(taking: Taking) -> None:
    first, second = taking.take(OURS), taking.take(OURS)
    first.ack()
    assert not taking.acks.end(tell=True)
    assert taking.noted() == tags(second)
    assert not is_late(taking.channel)
    second.ack()
    assert taking.noted() == set()


def test_workers_have_it(new_rig: Callable[..., Rig], monkeypatch: pytest.MonkeyPatch) -> None:
    """Also after they had to connect anew, when they do not try what is lost; one that has stopped has told all."""
    tried: list[bool] = []
    end = LateAcks.end
    monkeypatch.setattr(LateAcks, "end", lambda acks, *, tell: tried.append(tell) or end(acks, tell=tell))
    rig = new_rig("redis", worker_cancel_long_running_tasks_on_connection_loss=True)
    url = rig.app.conf.broker_url
    with redis.Redis.from_url(url) as server, start_worker(rig.app, pool="solo", perform_ping_check=False) as worker:
        consuming: Any = worker.consumer  # type: ignore[attr-defined]  # the stubs forget it
        first = consuming.task_consumer.channel
        assert is_late(first)
        rig.succeeded([rig.schedule(rig.shop.mark, f"before {n}") for n in range(10)])
        wait_for(lambda: not server.exists("unacked", "unacked_index"))

        rig.cut_redis()
        second = wait_for(lambda: (now := consuming.task_consumer) and now.channel is not first and now.channel)
        wait_for(lambda: is_late(second))
        rig.succeeded([rig.schedule(rig.shop.mark, "after")])
    with redis.Redis.from_url(url) as server:
        assert not server.exists("unacked", "unacked_index")
    assert not is_late(second) and tried == [False, True]
