"""Whether anybody hears what is told to all.

On Redis that goes by PUBLISH, whose answer is how many got it. Who is not there then gets it at no later time, so
nothing is lost with what is not said while nobody listens.
"""

from __future__ import annotations

from typing import Any

from celery import Celery

from confect_celery.runtime.kept_client import keep_client

__all__ = ["Audience"]


class Audience:
    """Who hears what a channel tells all."""

    heard: int | None = None
    """How many heard the last message; None where nobody counts them."""

    def __init__(self, app: Celery, channel: Any) -> None:
        # Who listens at another server, a replica for example, is not counted by ours.
        one_broker = app.conf.broker_read_url == app.conf.broker_write_url
        if one_broker and keep_client(channel):
            with channel.conn_or_acquire() as client:
                client.set_response_callback("PUBLISH", self._answered)

    @property
    def is_gone(self) -> bool:
        """Whether nobody heard the last message."""
        return self.heard == 0

    def _answered(self, number: int, **_: Any) -> int:
        self.heard = number
        return number
