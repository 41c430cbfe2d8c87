"""Whether anybody hears what is told to all.

On Redis that goes by PUBLISH, whose answer is how many got it; RabbitMQ gives back what it has no queue for. Who is not
there then gets it at no later time, so nothing is lost with what is not said while nobody listens.
"""

from __future__ import annotations

import sys
from functools import partial
from typing import Any, Final

from celery import Celery

from confect_celery.runtime.kept_client import keep_client

__all__ = ["Audience"]

_ANSWERED_WITHIN_SECONDS: Final = 5.0
"""RabbitMQ answers in milliseconds; under a memory or disk alarm it does not answer at all."""


class Audience:
    """Who hears what a channel tells all."""

    heard: int | None = None
    """How many heard the last message; None where nobody counts them, or some did."""

    def __init__(self, app: Celery, channel: Any) -> None:
        # Who listens at another server, a replica for example, is not counted by ours.
        if app.conf.broker_read_url != app.conf.broker_write_url:
            return
        if keep_client(channel):
            with channel.conn_or_acquire() as client:
                client.set_response_callback("PUBLISH", self._answered)
        elif _is_rabbitmqs(channel):
            channel.events["basic_return"].add(self._returned)
            channel.basic_publish = partial(_publish, channel)

    @property
    def is_gone(self) -> bool:
        """Whether nobody heard the last message."""
        return self.heard == 0

    def _answered(self, number: int, **_: Any) -> int:
        self.heard = number
        return number

    def _returned(self, *_: Any) -> None:
        self.heard = 0


def _is_rabbitmqs(channel: Any) -> bool:
    """Whether it is exactly kombu's own channel, on RabbitMQ itself: that what is given back comes before what is
    confirmed, its documentation says, and no other's."""
    own = getattr(sys.modules.get("kombu.transport.pyamqp"), "Channel", None)
    if own is None or type(channel) is not own:
        return False
    return bool(channel.connection.server_properties.get("product") == "RabbitMQ")


def _publish(channel: Any, message: Any, **options: Any) -> Any:
    """Publish, and wait until it is confirmed, and so given back before if there is no queue for it."""
    asked = {**options, "mandatory": True, "confirm_timeout": _ANSWERED_WITHIN_SECONDS}
    return channel.basic_publish_confirm(message, **asked)
