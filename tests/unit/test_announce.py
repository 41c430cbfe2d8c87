"""Monitors are told in few messages, however many calls there are, of all that happened and in its order."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import pytest
from celery import Celery
from celery.events import EventDispatcher
from celery.events.event import event_exchange
from kombu import Consumer, Queue

from confect_celery import Confect, DateTime
from confect_celery.runtime import Events, announce
from confect_celery.store import Delivery, NewRow, ScheduledFunctionId, new_id
from tests.support.waiting import wait_for


def test_events_that_keep_coming_share_messages() -> None:
    app = Celery("announce", broker="memory://", set_as_current=False)
    app.conf.confect_database_url = "sqlite://"
    settings = Confect(app).settings
    messages: list[list[str]] = []
    with app.connection_for_read() as connection:
        queue = Queue("heard", exchange=event_exchange, routing_key="#", auto_delete=True)

        def hear(body: object, message: object) -> None:
            events = body if isinstance(body, list) else [body]
            messages.append([event["uuid"] for event in events])

        with Consumer(connection, queues=[queue], callbacks=[hear], no_ack=True, accept=["json"]):
            events, ids = Events(app, settings), [f"id-{n}" for n in range(300)]

            def tell(id: str) -> None:
                row = ScheduledFunctionId(id)
                events.pending([Delivery(row, "internal/t/f", "action", {"a": 1}, DateTime.now(), 0, {}, None)])

            def heard(many: int) -> bool:
                while True:
                    try:
                        connection.drain_events(timeout=0.01)
                    except TimeoutError:
                        return sum(map(len, messages)) >= many

            tell(ids[0])
            wait_for(lambda: heard(1), within=10, what="the first: after a quiet moment it is told at once")
            for id in ids[1:]:
                tell(id)
                time.sleep(0.001)
            wait_for(lambda: heard(len(ids)), within=10, what="all events")
    assert [id for message in messages for id in message] == ids
    assert len(messages) < len(ids) / 10


class Sends:
    """What a process tells, a list a message; each takes as long as `meanwhile`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.messages: list[list[dict[str, Any]]] = []
        self.meanwhile: Callable[[], object] = lambda: None
        open_: list[dict[str, Any]] = []

        def send(_: EventDispatcher, type: str, **fields: Any) -> None:
            open_.append({"type": type, **fields})

        def flush(_: EventDispatcher, **__: Any) -> None:
            self.messages.append(open_[:])
            open_.clear()
            self.meanwhile()

        monkeypatch.setattr(EventDispatcher, "send", send)
        monkeypatch.setattr(EventDispatcher, "flush", flush)
        app = Celery("announce", broker="memory://", set_as_current=False)
        app.conf.confect_database_url = "sqlite://"
        self.events = Events(app, Confect(app).settings)

    def told(self) -> list[str]:
        return [event["uuid"] for message in self.messages for event in message]

    def cancel(self, *ids: str) -> None:
        self.events.canceled(ids)


def test_what_comes_during_a_send_is_gathered(monkeypatch: pytest.MonkeyPatch) -> None:
    sends = Sends(monkeypatch)
    more = iter(range(20))

    def one_more() -> None:
        if len(sends.messages) == 1:
            for n in more:
                sends.cancel(f"id-{n}")
                time.sleep(0.002)
        elif len(sends.messages) == 2:
            sends.cancel("last")

    sends.meanwhile = one_more
    with patch.object(announce, "_GATHERED_SECONDS", 0.5):
        sends.cancel("first")
        wait_for(lambda: len(sends.messages) == 2, within=5, what="what came meanwhile")
        wait_for(lambda: "last" in sends.told(), within=5, what="the last")
    assert [[event["uuid"] for event in message] for message in sends.messages] == [
        ["first"],
        [f"id-{n}" for n in range(20)],
        ["last"],
    ]


def test_a_crowd_does_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    sends = Sends(monkeypatch)
    with patch.object(announce, "_GATHERED_SECONDS", 30.0):
        sends.cancel("first")
        wait_for(lambda: sends.told() == ["first"], within=5, what="the first")
        ids = [f"id-{n}" for n in range(announce._CROWD)]
        sends.cancel(*ids[:-1])
        time.sleep(0.1)
        assert sends.told() == ["first"], "what is no crowd waits"
        sends.cancel(ids[-1])
        wait_for(lambda: len(sends.told()) > len(ids), within=5, what="the crowd")
        sends.cancel("later")
        time.sleep(0.1)
        assert sends.told() == ["first", *ids], "and then there is time again"
        waiting = threading.Thread(target=announce._say_last_words)
        waiting.start()
        wait_for(lambda: sends.told()[-1] == "later", within=5, what="the last words")
        waiting.join()


def test_what_comes_as_the_thread_lies_down_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    sends = Sends(monkeypatch)
    late: list[threading.Thread] = []

    class Looked(deque[Any]):
        """Where the thread has seen that it is empty, something comes before the thread goes on."""

        def __bool__(self) -> bool:
            full = len(self) > 0
            if not full and not late and sends.told() == ["first"]:
                late.append(threading.Thread(target=sends.cancel, args=("late",)))
                late[0].start()
                wait_for(lambda: len(self) > 0, within=5, what="that it comes")
                late[0].join(0.2)  # it may be waiting for the thread
            return full

    line = sends.events._line()
    line.waiting = Looked(maxlen=line.waiting.maxlen)
    sends.cancel("first")
    wait_for(lambda: sends.told() == ["first", "late"], within=10, what="both, and not after a minute")
    late[0].join()


def test_a_row_is_told_of_as_its_delivery_is(monkeypatch: pytest.MonkeyPatch) -> None:
    sends, now = Sends(monkeypatch), DateTime.now()
    row = NewRow(new_id(now), "internal/t/f", "action", b'{"a":"\\u00e9"}', now, now, now, {}, new_id(now))
    sends.events.pending([row])
    sends.events.pending([row.to_delivery()])
    wait_for(lambda: len(sends.told()) == 2, within=5, what="both")
    one, two = (event for message in sends.messages for event in message)
    assert one == two
    assert (one["uuid"], one["kwargs"], one["parent_id"]) == (row.id, "{'a': 'é'}", row.parent_id)
