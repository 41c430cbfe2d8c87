"""Monitors are told in few messages, however many calls there are, of all that happened and in its order."""

from __future__ import annotations

import time

from celery import Celery
from celery.events.event import event_exchange
from kombu import Consumer, Queue

from confect_celery import Confect, DateTime
from confect_celery.runtime import Events
from confect_celery.store import Delivery, ScheduledFunctionId
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
            for id in ids:
                now = DateTime.now()
                row = ScheduledFunctionId(id)
                events.pending([Delivery(row, "internal/t/f", "action", {"a": 1}, now, 0, {}, None)])
                time.sleep(0.001)

            def all_heard() -> bool:
                while True:
                    try:
                        connection.drain_events(timeout=0.01)
                    except TimeoutError:
                        return sum(map(len, messages)) >= len(ids)

            wait_for(all_heard, within=10, what="all events")
    assert [id for message in messages for id in message] == ids
    assert messages[0] == ["id-0"], "after a quiet moment the first is told at once"
    assert len(messages) < len(ids) / 10
