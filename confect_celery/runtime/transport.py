"""What a row looks like as a Celery message."""

from __future__ import annotations

from typing import Any, Final

from celery import Celery

from confect_celery.settings import Settings
from confect_celery.store import Delivery

__all__ = ["ATTEMPT_HEADER", "CeleryTransport"]

ATTEMPT_HEADER: Final = "confect_attempt"
"""The header with the attempt that this message is for: a message with an older one starts nothing."""

_HIDDEN: Final = "(hidden)"


class CeleryTransport:
    """Publishes a row under its own id as the task id.

    The message of a Confect function carries no arguments: the row has them. A plain task's message carries them, as
    Celery needs. What Flower and the logs show of them follows `confect_show_args`.
    """

    def __init__(self, app: Celery, settings: Settings) -> None:
        self._app = app
        self._settings = settings

    def publish(self, delivery: Delivery) -> None:
        """Send the message; kombu's or the broker's errors come through."""
        options = dict(delivery.options)
        positional: list[Any] = options.pop("args", [])
        named: dict[str, Any] = delivery.args
        plain = delivery.kind == "task"
        shown = self._settings.show_args
        if not plain:
            options.setdefault("time_limit", self._settings.time_limit.total_seconds())
        with self._app.producer_or_acquire() as producer:
            self._app.send_task(
                delivery.name,
                args=positional if plain else [],
                kwargs=named if plain else {},
                task_id=delivery.id,
                producer=producer,
                # In the header only: given as an argument it makes Celery delay the message itself on quorum queues.
                headers={ATTEMPT_HEADER: delivery.attempt, "eta": delivery.due.to_utc().isoformat()},
                argsrepr=repr(tuple(positional)) if shown else _HIDDEN,
                kwargsrepr=repr(named) if shown else _HIDDEN,
                # The row tells whose child it is; the process that happens to publish it is nobody's parent.
                add_to_parent=False,
                parent_id=delivery.parent_id,
                **options,
            )
