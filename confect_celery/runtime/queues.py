"""Whether a queue still holds messages: then one that has not arrived is not lost, it has not been read yet."""

from __future__ import annotations

import logging
import time
from typing import Any, Final

from celery import Celery

from confect_celery.runtime.transport import CeleryTransport
from confect_celery.store import Delivery

__all__ = ["Queues"]

logger = logging.getLogger(__name__)

_KNOWN_FOR_SECONDS: Final = 1.0
_MOST_KNOWN: Final = 1000


class Queues:
    """Asks the broker, once a second and queue at most."""

    def __init__(self, app: Celery, transport: CeleryTransport) -> None:
        self._app = app
        self._transport = transport
        self._known: dict[str, tuple[float, bool]] = {}

    def hold_messages(self, delivery: Delivery) -> bool:
        """Whether there are messages in the queue that the delivery's own went to. False where nobody can tell."""
        try:
            name = self._transport.queue_of(delivery)
        except Exception:  # of which nothing can be published either; the outbox tells
            return False
        if name is None:
            return False
        asked_at, holds = self._known.get(name, (float("-inf"), False))
        if time.monotonic() - asked_at > _KNOWN_FOR_SECONDS:
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            holds = self._ask(name)
            self._known[name] = time.monotonic(), holds
        return holds

    def _ask(self, name: str) -> bool:
        try:
            with self._app.connection_for_write() as connection, connection.channel() as channel:
                ask: Any = channel  # the stubs know only a channel's bounds
                return bool(ask.queue_declare(queue=name, passive=True).message_count)
        except Exception as error:  # no such queue, no such command, no broker
            logger.debug("The broker does not tell of the queue %s: %s", name, error)
            return False
