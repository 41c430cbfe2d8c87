"""What a row looks like as a Celery message."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Final

from celery import Celery
from celery.app.task import extract_exec_options  # type: ignore[attr-defined]  # the stubs forget it
from celery.utils.quorum_queues import detect_quorum_queues
from kombu import Producer
from kombu.exceptions import EncodeError, SerializerNotInstalled

from confect_celery.errors import Unpublishable
from confect_celery.runtime.confirms import Confirms
from confect_celery.runtime.messages import ATTEMPT_HEADER, RUNS_AS, decode, task_name
from confect_celery.settings import Settings
from confect_celery.store import Delivery

__all__ = ["CeleryTransport", "native_send", "own_options"]

_HIDDEN: Final = "(hidden)"

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

    def holding_is_free(self) -> bool:
        """Whether a worker can hold a message until its eta and still be given others."""
        with self._app.connection_for_write() as connection:  # opens nothing
            return not detect_quorum_queues(self._app, connection.transport.driver_type)[0]

    def producer(self) -> AbstractContextManager[tuple[Producer, dict[str, Any]]]:
        """A producer for the app's broker, and the options that have the broker confirm one message."""
        return self._confirms.producer()

    def request(self, delivery: Delivery) -> dict[str, Any]:
        """What a worker would have as the request of the delivery's message, but for where it came from."""
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
        try:
            name, message = self._message(delivery)
        except Exception as error:
            raise Unpublishable(delivery.name, f"{type(error).__name__}: {error}") from error
        send = native_send(self._app)
        with self._confirms.producer() as (producer, confirmed):
            try:
                send(name, producer=producer, **{**confirmed, **message})
            except (EncodeError, SerializerNotInstalled) as error:
                raise Unpublishable(delivery.name, f"{type(error).__name__}: {error}") from error

    def _message(self, delivery: Delivery) -> tuple[str, dict[str, Any]]:
        plain = delivery.kind == "task"
        given = decode(dict(delivery.options)) if plain else dict(delivery.options)
        kwargs = decode(delivery.args) if plain else delivery.args
        positional: list[Any] = given.pop("args", [])
        if not isinstance(kwargs, dict) or not isinstance(positional, list):
            raise TypeError("its arguments are no JSON object, or those by position no list")
        name = task_name(delivery.name, given)
        task = self._app.tasks.get(name)
        shown = self._settings.show_args
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
            "argsrepr": given.get("argsrepr") or (repr(tuple(positional)) if shown else _HIDDEN),
            "kwargsrepr": given.get("kwargsrepr") or (repr(kwargs) if shown else _HIDDEN),
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
