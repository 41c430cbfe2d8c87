"""Nothing is made of what nobody would hear, and who listens hears all from then on."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import amqp
import pytest
from celery import Celery
from celery.events import EventDispatcher
from celery.events.event import get_exchange
from kombu import Consumer, Queue

from confect_celery import Confect
from confect_celery.runtime import Events
from tests.support.brokers import Brokers, RabbitServer
from tests.support.waiting import wait_for

MANY = 500


class Monitored:
    """A shop whose rows are canceled, and what is made of that."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **urls: str) -> None:
        self.made = 0
        send = EventDispatcher.send

        def counted(dispatcher: EventDispatcher, type: str, **fields: Any) -> None:
            self.made += 1
            send(dispatcher, type, **fields)

        monkeypatch.setattr(EventDispatcher, "send", counted)
        self.app = Celery("audience", set_as_current=False)
        self.app.conf.update(confect_database_url="sqlite://", **urls)
        self.events = Events(self.app, Confect(self.app).settings)

    def cancel(self, *ids: str) -> int:
        """Have it told; gives back of how many events were made."""
        before = self.made
        self.events.canceled(ids)
        wait_for(lambda: self.events._line()._silent.is_set(), within=10, what="all is told")
        return self.made - before

    @contextmanager
    def monitor(self) -> Iterator[Callable[[], list[str]]]:
        """Somebody who listens, and what was heard."""
        heard: list[str] = []

        def hear(body: Any, message: object) -> None:
            heard.extend(event["uuid"] for event in (body if isinstance(body, list) else [body]))

        with self.app.connection_for_read() as connection:
            queue = Queue("monitor", exchange=get_exchange(connection), routing_key="#", auto_delete=True)

            def hears(seconds: float = 0.05) -> list[str]:
                while True:
                    try:
                        connection.drain_events(timeout=seconds)
                    except TimeoutError:
                        return heard

            with Consumer(connection, queues=[queue], callbacks=[hear], no_ack=True, accept=["json"]):
                wait_for(lambda: self.cancel("first") and hears(), within=10, what="the first that it hears")
                heard.clear()
                yield hears


def ids(prefix: str) -> list[str]:
    return [f"{prefix}-{n}" for n in range(MANY)]


@pytest.mark.parametrize("server", ["redis", "valkey", "rabbitmq"])
def test_only_who_listens_has_events_made(brokers: Brokers, monkeypatch: pytest.MonkeyPatch, server: str) -> None:
    shop = Monitored(monkeypatch, broker_url=brokers.url(server))
    shop.cancel("nobody knows yet")
    assert shop.cancel(*ids("nobody")) == 1, "one tells whether that is so still"
    with shop.monitor() as hears:
        assert shop.cancel(*ids("somebody")) == MANY
        assert hears() == ids("somebody")
    shop.cancel("the last that it might have heard")
    assert shop.cancel(*ids("nobody any more")) == 1
    with shop.monitor() as hears:
        shop.cancel(*ids("somebody again"))
        assert hears() == ids("somebody again")


@pytest.mark.parametrize(
    ("server", "elsewhere"),
    [("redis", True), ("rabbitmq", True), ("memory", False)],
    ids=["another server", "another RabbitMQ", "one that does not count"],
)
def test_where_nobody_counts_all_are_made(
    brokers: Brokers, monkeypatch: pytest.MonkeyPatch, server: str, elsewhere: bool
) -> None:
    url = "memory://audience" if server == "memory" else brokers.url(server)
    read = url.replace("127.0.0.1", "localhost") if elsewhere else url
    assert (read != url) is elsewhere
    shop = Monitored(monkeypatch, broker_write_url=url, broker_read_url=read)
    shop.cancel("nobody knows yet")
    assert shop.cancel(*ids("nobody")) == MANY


def test_a_broker_under_an_alarm_holds_up_nobody_and_what_happened_is_told_after_it(
    brokers: Brokers, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = brokers.new("rabbitmq")
    try:
        server.start()
        assert isinstance(server, RabbitServer)
        shop = Monitored(monkeypatch, broker_url=server.url())
        with shop.monitor() as hears:
            server.control("set_vm_memory_high_watermark", "0.00001")
            line, began = shop.events._line(), time.monotonic()
            shop.events.canceled(ids("meanwhile"))
            assert time.monotonic() - began < 1, "who schedules waits for no broker"
            wait_for(lambda: line._down, within=30, what="the events' thread to see that nobody answers")
            shop.events.canceled(["later"])
            began = time.monotonic()
            line.flush(10)
            assert time.monotonic() - began < 1, "nor does who ends"
            assert shop.events.waiting == MANY + 1, "nothing is lost"
            server.control("set_vm_memory_high_watermark", "absolute", "512MB")
            wait_for(lambda: "later" in hears(), within=60, what="the monitor to hear it")
            assert set(hears()) == {*ids("meanwhile"), "later"}
    finally:
        server.close()


def test_what_speaks_rabbitmqs_protocol_may_confirm_before_it_gives_back(
    brokers: Brokers, monkeypatch: pytest.MonkeyPatch
) -> None:
    another = property(lambda _: {"product": "LavinMQ"}, lambda *_: None)
    monkeypatch.setattr(amqp.Connection, "server_properties", another, raising=False)
    shop = Monitored(monkeypatch, broker_url=brokers.url("rabbitmq"))
    shop.cancel("nobody knows yet")
    assert shop.cancel(*ids("nobody")) == MANY
