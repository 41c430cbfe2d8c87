"""What a row looks like as a Celery message."""

from __future__ import annotations

from typing import Any, Final

from celery import Celery
from celery.app.task import extract_exec_options  # type: ignore[attr-defined]  # the stubs forget it
from celery.utils.quorum_queues import detect_quorum_queues

from confect_celery.runtime.confirms import Confirms
from confect_celery.settings import Settings
from confect_celery.store import Delivery

__all__ = ["ATTEMPT_HEADER", "CeleryTransport"]

ATTEMPT_HEADER: Final = "confect_attempt"
"""The header with the attempt that this message is for: a message with an older one starts nothing."""

_HIDDEN: Final = "(hidden)"

_DELAYS: Final = ("countdown", "eta")
"""What a signature may say of its time: the row knows better."""


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

    def publish(self, delivery: Delivery) -> None:
        """Send the message; raises what kombu or the broker has against it, a queue that is not there included."""
        task = self._app.tasks.get(delivery.name)
        given = dict(delivery.options)
        positional: list[Any] = given.pop("args", [])
        plain = delivery.kind == "task"
        shown = self._settings.show_args
        options = {name: value for name, value in {**_own_options(task), **given}.items() if name not in _DELAYS}
        if not plain:
            options["time_limit"] = given.get("time_limit", self._settings.time_limit.total_seconds())
        message = {
            "args": positional if plain else [],
            "kwargs": delivery.args if plain else {},
            "task_id": delivery.id,
            "task_type": task,
            # In the header only: given as an argument it makes Celery delay the message itself on quorum queues.
            "headers": {
                **(given.get("headers") or {}),
                "ignore_result": bool(
                    options.get("ignore_result", getattr(task, "ignore_result", self._app.conf.task_ignore_result))
                ),
                ATTEMPT_HEADER: delivery.attempt,
                "eta": delivery.due.to_utc().isoformat(),
            },
            "argsrepr": repr(tuple(positional)) if shown else _HIDDEN,
            "kwargsrepr": repr(delivery.args) if shown else _HIDDEN,
            # The row tells whose child it is; the process that happens to publish it is nobody's parent.
            "add_to_parent": False,
            # The process that publishes waits for no result: subscribing to it takes long when the backend is away.
            "ignore_result": True,
            "parent_id": delivery.parent_id,
        }
        with self._confirms.producer() as (producer, confirmed):
            self._app.send_task(delivery.name, producer=producer, **{**confirmed, **options, **message})


def _own_options(task: Any) -> dict[str, Any]:
    """What the task itself says of its queue, priority, limits and so on; before 5.7 `send_task` did not ask it."""
    if task is None:
        return {}
    return {name: value for name, value in extract_exec_options(task).items() if value is not None}
