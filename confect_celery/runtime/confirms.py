"""Producers that hear of it when the broker did not take a message.

Without confirmations RabbitMQ drops silently what it can neither keep nor route: a full queue, a missing exchange, a
queue that was deleted. Our messages wait for its word; then their rows can go back to the table at once instead of
after `confect_redelivery`. Other brokers answer every command anyway.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from celery import Celery
from kombu import Producer, pools

__all__ = ["Confirms"]

_CONFIRMED_WITHIN_SECONDS: Final = 5.0
"""RabbitMQ confirms in milliseconds; under a memory or disk alarm it does not confirm at all."""


class Confirms:
    """Lends producers for the app's broker; on RabbitMQ with confirmations, unless `confirm_publish` is off."""

    def __init__(self, app: Celery) -> None:
        self._app = app
        self._pool: tuple[int, pools.ProducerPool | None] | None = None
        self._returned = threading.local()

    @contextmanager
    def producer(self) -> Iterator[tuple[Producer, dict[str, Any]]]:
        """A producer, and the options to publish one message with; at the end, raises what the broker sent back."""
        pool = self._confirming_pool()
        if pool is None:
            with self._app.producer_or_acquire() as producer:
                yield producer, {}
            return
        with pool.acquire(block=True, timeout=self._app.conf.get("broker_pool_acquire_timeout")) as producer:
            producer.on_return = self._on_return
            self._returned.error = None
            try:
                yield producer, {"mandatory": True, "confirm_timeout": _CONFIRMED_WITHIN_SECONDS}
                if self._returned.error is not None:
                    raise self._returned.error
            except BaseException:
                # The channel may be closed, or a late confirmation on its way that the next message would take for its
                # own; and the next connection declares anew what somebody may have deleted.
                if producer.connection is not None:
                    producer.connection.collect()
                raise

    def _on_return(self, error: Exception, *_: Any) -> None:
        self._returned.error = error

    def _confirming_pool(self) -> pools.ProducerPool | None:
        """None where the broker knows no confirmations, or the shop does without."""
        if self._pool is None or self._pool[0] != os.getpid():
            self._pool = (os.getpid(), self._make_pool())
        return self._pool[1]

    def _make_pool(self) -> pools.ProducerPool | None:
        given = dict(self._app.conf.broker_transport_options or {})
        if not given.get("confirm_publish", True):
            return None
        connection = self._app.connection_for_write(transport_options={**given, "confirm_publish": True})
        if not type(connection.transport).__module__.startswith("kombu.transport.pyamqp"):
            return None
        pool: pools.ProducerPool = pools.producers[connection]
        pool.limit = self._app.pool.limit
        return pool
