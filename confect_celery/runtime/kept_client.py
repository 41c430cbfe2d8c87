"""On Redis, the channel that a worker consumes from keeps its client.

kombu makes a client object for each command of its own that is no part of consuming: two a message, to note that a
worker has it and that it is done. With redis-py 8 that is a seventh of what a worker's main process does for a task.
They are all alike, and none holds a connection: each takes one from the channel's pool for as long as a command takes.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from celery import bootsteps

if TYPE_CHECKING:
    from celery.worker.consumer import Consumer

__all__ = ["KeptClientStep", "is_kombus_redis", "keep_client"]


class KeptClientStep(bootsteps.StartStopStep):
    """Once a worker consumes, and again whenever it has had to connect anew."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def start(self, parent: Consumer) -> None:
        """Have the channel keep its client."""
        consuming: Any = parent  # the stubs know little of it
        keep_client(consuming.task_consumer.channel)


def is_kombus_redis(channel: Any) -> bool:
    """Whether it is exactly kombu's own channel on Redis: a subclass may be anything."""
    own = getattr(sys.modules.get("kombu.transport.redis"), "Channel", None)
    return own is not None and type(channel) is own


def keep_client(channel: Any) -> bool:
    """Have it use one client as long as it has the same pool; False where it is not kombu's own channel on Redis."""
    if not (is_kombus_redis(channel) and hasattr(channel, "_create_client") and hasattr(type(channel), "pool")):
        return False
    make = channel._create_client
    client: Any = None

    def create(*asked: Any, **named: Any) -> Any:
        nonlocal client
        if asked or named:  # for the client that consumes, which a channel makes once anyway
            return make(*asked, **named)
        kept = client
        if kept is None or kept.connection_pool is not channel.pool:
            kept = client = make()
        return kept

    channel._create_client = create
    return True
