"""What Flower would hear: the events of a shop's workers."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from celery import Celery
from celery.events import EventReceiver

from tests.support.waiting import wait_for


class _Receiver(EventReceiver):  # type: ignore[misc]  # Celery has no types
    """Tells when it is bound: what is sent before that is heard by nobody."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.bound = threading.Event()

    def on_consume_ready(self, *args: Any, **kwargs: Any) -> None:
        super().on_consume_ready(*args, **kwargs)
        self.bound.set()


@contextmanager
def listening(app: Celery) -> Iterator[list[dict[str, Any]]]:
    """All events from here on, in the order they come in. It stays bound throughout: the fanout keeps nothing."""
    events: list[dict[str, Any]] = []
    with app.connection_for_read() as connection:
        receiver = _Receiver(connection, handlers={"*": events.append}, app=app)

        def listen() -> None:
            for _ in receiver.consume(wakeup=True, safety_interval=0.2):
                pass

        thread = threading.Thread(target=listen)
        thread.start()
        try:
            wait_for(receiver.bound.is_set, what="the listener to be bound")
            yield events
        finally:
            receiver.should_stop = True
            thread.join()
