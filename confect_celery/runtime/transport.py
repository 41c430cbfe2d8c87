"""What a row looks like as a Celery message."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Final

from celery import Celery
from celery.app.task import extract_exec_options  # type: ignore[attr-defined]  # the stubs forget it
from kombu import Producer
from kombu.exceptions import EncodeError, SerializerNotInstalled

from confect_celery.errors import Unpublishable
from confect_celery.runtime.confirms import Confirms
from confect_celery.runtime.messages import ATTEMPT_HEADER, HIDDEN, RUNS_AS, call_in, shown
from confect_celery.runtime.patterns import Message, Patterns
from confect_celery.settings import Settings
from confect_celery.store import Delivery

__all__ = ["CeleryTransport", "native_send", "own_options"]

logger = logging.getLogger(__name__)

_OURS: Final = ("countdown", "eta", RUNS_AS)
"""What a signature may say of its time, where the row knows better; and what is not for Celery."""


def native_send(app: Celery) -> Callable[..., Any]:
    """What publishes in Celery itself, past the capture that stands in its place."""
    return getattr(app.send_task, "native", app.send_task)


class CeleryTransport:
    """Publishes a row under its own id as the task id.

    The message of a Confect function carries no arguments: the row has them. A plain task's message carries them, as
    Celery needs. What Flower and the logs show of them follows `confect_show_args`.
    """

    def __init__(self, app: Celery, settings: Settings) -> None:
        self._app = app
        self._settings = settings
        self._confirms = Confirms(app)
        self._patterns = Patterns(app, self._message, self._send, self._full_request, show_args=settings.show_args)

    def producer(self) -> AbstractContextManager[tuple[Producer, dict[str, Any]]]:
        """A producer for the app's broker, and the options that have the broker confirm one message."""
        return self._confirms.producer()

    def request(self, delivery: Delivery) -> dict[str, Any]:
        """What a worker would have as the request of the delivery's message, but for where it came from."""
        return self._patterns.request(delivery)

    def _full_request(self, delivery: Delivery) -> dict[str, Any]:
        name, message = self._message(delivery)
        args, kwargs = message["args"], message["kwargs"]
        built = self._app.amqp.as_task_v2(
            **{**message, "name": name, "args": args, "kwargs": kwargs, "retries": message.get("retries") or 0}
        )
        embedded = built.body[2]
        return {**built.headers, **message["headers"], **embedded, **built.properties, "args": args, "kwargs": kwargs}

    def queue_of(self, delivery: Delivery) -> str | None:
        """The name of the queue that the delivery's message goes to, where it is one."""
        name, message = self._message(delivery)
        router: Any = self._app.amqp.router  # the stubs know little of it
        options = {key: message[key] for key in ("queue", "exchange", "routing_key") if message.get(key) is not None}
        queue = router.route(options, name, message["args"], message["kwargs"], message["task_type"]).get("queue")
        found: str | None = getattr(queue, "name", queue)
        return found

    def publish(self, delivery: Delivery) -> None:
        """Send the message; raises what kombu or the broker has against it, a queue that is not there included.

        Raises Unpublishable where no message can be made of the row, now or ever.
        """
        made = self._made(delivery) if self._patterns.hold() else None
        if made is not None:
            self._confirms.send(made)
            return
        try:
            name, message = self._message(delivery)
        except Exception as error:
            raise Unpublishable(delivery.name, f"{type(error).__name__}: {error}") from error
        with self._confirms.producer() as (producer, confirmed):
            try:
                self._send(name, producer=producer, **{**confirmed, **message})
            except (EncodeError, SerializerNotInstalled) as error:
                raise Unpublishable(delivery.name, f"{type(error).__name__}: {error}") from error

    def publish_each(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        """Publish each in a message of its own, many in one round trip where the broker can do that.

        Gives back those that it may not have: of them `publish` tells what there is against it. It may have one of
        them all the same; of two messages of one attempt the second starts nothing.
        """
        if not self._patterns.hold():
            return list(deliveries)
        made = [(delivery, message) for delivery in deliveries if (message := self._made(delivery)) is not None]
        has = self._confirms.send_many([message for _, message in made])
        there = {id(delivery) for n, (delivery, _) in enumerate(made) if n in has}
        return [delivery for delivery in deliveries if id(delivery) not in there]

    def _made(self, delivery: Delivery) -> Message | None:
        try:
            return self._patterns.message(delivery)
        except Exception as error:  # whoever publishes it in full hears of it again
            logger.debug("%s is published in full: %s", delivery.name, error)
            return None

    def _send(self, *args: Any, **kwargs: Any) -> Any:
        return native_send(self._app)(*args, **kwargs)

    def _message(self, delivery: Delivery) -> tuple[str, dict[str, Any]]:
        plain = delivery.kind == "task"
        name, given, positional, kwargs = call_in(delivery)
        task = self._app.tasks.get(name)
        shows = self._settings.show_args
        options = {name: value for name, value in {**own_options(task), **given}.items() if name not in _OURS}
        if not plain:
            options["time_limit"] = given.get("time_limit", self._settings.time_limit.total_seconds())
        message = {
            "args": positional if plain else [],
            "kwargs": kwargs if plain else {},
            "task_id": delivery.id,
            "task_type": task,
            # The eta in the header only: as an argument it makes Celery delay the message itself on quorum queues.
            "headers": {
                **(given.get("headers") or {}),
                "ignore_result": bool(
                    options.get("ignore_result", getattr(task, "ignore_result", self._app.conf.task_ignore_result))
                ),
                ATTEMPT_HEADER: delivery.attempt,
                "eta": delivery.due.to_utc().isoformat(),
            },
            "argsrepr": given.get("argsrepr") or (shown(tuple(positional)) if shows else HIDDEN),
            "kwargsrepr": given.get("kwargsrepr") or (shown(kwargs) if shows else HIDDEN),
            # The row tells whose child it is; the process that happens to publish it is nobody's parent.
            "add_to_parent": False,
            # The process that publishes waits for no result: subscribing to it takes long when the backend is away.
            "ignore_result": True,
            "parent_id": given.get("parent_id") or delivery.parent_id,
        }
        return name, {**options, **message}


def own_options(task: Any) -> dict[str, Any]:
    """What the task itself says of its queue, priority, limits and so on; before 5.7 `send_task` did not ask it."""
    if task is None:
        return {}
    return {name: value for name, value in extract_exec_options(task).items() if value is not None}
