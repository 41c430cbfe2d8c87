"""Producers that hear of it when the broker did not take a message.

Without confirmations RabbitMQ drops silently what it can neither keep nor route: a full queue, a missing exchange, a
queue that was deleted. Our messages wait for its word; then their rows can go back to the table at once instead of
after `confect_redelivery`. Other brokers answer every command anyway.

Many messages are sent before the first answer is waited for.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from amqp.method_framing import frame_writer
from celery import Celery
from kombu import Producer, pools

from confect_celery.runtime.patterns import Message

__all__ = ["Confirms"]

logger = logging.getLogger(__name__)

_CONFIRMED_WITHIN_SECONDS: Final = 5.0
"""RabbitMQ confirms in milliseconds; under a memory or disk alarm it does not confirm at all."""

_AT_ONCE: Final = 25
"""So many messages go out in one round trip: with more, the first would wait longer than a round trip takes."""

_FEWEST: Final = 4
"""Of fewer, each is confirmed for itself: a channel for all costs as much as three confirmations."""


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
        with self._acquired(pool) as producer:
            producer.on_return = self._on_return
            self._returned.error = None
            try:
                yield producer, _CONFIRMED
                if self._returned.error is not None:
                    raise self._returned.error
            except BaseException:
                _renew(producer)
                raise

    def send(self, message: Message) -> None:
        """Publish one message; raises what kombu or the broker has against it."""
        with self.producer() as (producer, confirmed):
            connection: Any = producer.connection  # the stubs know only what is public
            with connection._reraise_as_library_errors():  # as Celery does around each
                producer.publish(message.body, **{**confirmed, **message.options})

    def send_many(self, messages: Sequence[Message]) -> set[int]:
        """Publish many; at which places those are that the broker has for certain. Raises nothing."""
        pool, has = self._confirming_pool(), set[int]()
        try:
            if pool is not None:
                if len(messages) >= _FEWEST:
                    with self._acquired(pool) as producer:
                        _send_confirmed(producer, messages, has)
            elif messages:
                with self._app.producer_or_acquire() as producer:
                    _send_together(producer, messages, has)
        except Exception as error:  # what has gone wrong with which, each tells for itself when it is sent alone
            logger.debug("Of %d messages %d went out together: %s", len(messages), len(has), error)
        return has

    def _acquired(self, pool: pools.ProducerPool) -> Any:
        return pool.acquire(block=True, timeout=self._app.conf.get("broker_pool_acquire_timeout"))

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


_CONFIRMED: Final = {"mandatory": True, "confirm_timeout": _CONFIRMED_WITHIN_SECONDS}


def _renew(producer: Producer) -> None:
    """The channel may be closed, or a late confirmation on its way that the next message would take for its own; and
    the next connection declares anew what somebody may have deleted."""
    if producer.connection is not None:
        producer.connection.collect()


def _pieces(messages: Sequence[Message]) -> Iterator[range]:
    for start in range(0, len(messages), _AT_ONCE):
        yield range(start, min(start + _AT_ONCE, len(messages)))


def _send_together(producer: Any, messages: Sequence[Message], has: set[int]) -> None:
    """Where kombu can send many commands to the broker at once (Redis), it does."""
    if not getattr(producer, "supports_batch_publish", False):  # before kombu 5.7 none could
        for place, message in enumerate(messages):
            producer.publish(message.body, **message.options)
            has.add(place)
        return
    with producer.batch() as batch:
        for places in _pieces(messages):
            for place in places:
                producer.publish(messages[place].body, **{**messages[place].options, "retry": False})
            batch.flush()
            has.update(places)


def _declare(producer: Producer, messages: Sequence[Message]) -> None:
    entities = {id(entity): entity for message in messages for entity in message.options.get("declare") or ()}
    for entity in entities.values():
        producer.maybe_declare(entity)


class _Frames:
    """Stands in for a transport: keeps what is written."""

    def __init__(self) -> None:
        self.written = bytearray()

    def write(self, frame: Any) -> None:
        """The buffer of a frame is used again for the next."""
        self.written += frame


@contextmanager
def _written_at_once(connection: Any) -> Iterator[None]:
    """py-amqp hands each message to the kernel by itself, which takes longer than all else that it does for it."""
    frames, own = _Frames(), connection.frame_writer
    connection.frame_writer = frame_writer(connection, frames)
    try:
        yield
    finally:
        connection.frame_writer = own
    connection.transport.write(frames.written)


def _send_confirmed(producer: Producer, messages: Sequence[Message], has: set[int]) -> None:
    """On a channel of their own, the broker's answers are to these messages and to no others, numbered from 1."""
    answered, refused = set[int](), set[int]()
    places: dict[str, list[int]] = {}
    for place, message in enumerate(messages):
        places.setdefault(message.id, []).append(place)

    def on_ack(tag: int, multiple: bool) -> None:
        answered.update(range(tag) if multiple else (tag - 1,))

    def on_nack(tag: int, multiple: bool) -> None:
        refused.update({*(range(tag) if multiple else (tag - 1,))} - answered)  # of many, those without an answer yet
        on_ack(tag, multiple)

    def on_return(error: Exception, exchange: str, routing_key: str, message: Any) -> None:
        refused.update(places[message.properties["correlation_id"]])  # it is acknowledged as well, right after

    try:
        connection: Any = producer.connection  # the stubs know only what is public
        channel = connection.channel()
        del channel.basic_publish  # this one waits for the answer to each
        channel.confirm_select()
        for event, hear in (("basic_ack", on_ack), ("basic_nack", on_nack), ("basic_return", on_return)):
            channel.events[event].add(hear)
        together = Producer(channel, auto_declare=False)
        for piece in _pieces(messages):
            _declare(together, [messages[place] for place in piece])  # the broker answers each of these
            with _written_at_once(channel.connection):
                for place in piece:
                    options = {**_CONFIRMED, **messages[place].options, "retry": False, "declare": None}
                    together.publish(messages[place].body, **options)
            until = time.monotonic() + _CONFIRMED_WITHIN_SECONDS
            while not answered.issuperset(piece):
                connection.drain_events(timeout=max(until - time.monotonic(), 0.001))
        channel.close()
    except BaseException:
        _renew(producer)
        raise
    finally:
        has.update(answered - refused)
    if refused:
        _renew(producer)
