"""A worker that gathers fetches twice as much ahead, as long as nothing but brief rows comes to it.

How much its children share is bounded by what has been fetched: with Celery's own prefetch of four messages a child,
eight rows with two children. More would help nobody whose messages take long, and keep them from idle workers: at the
first of them the prefetch is the shop's again. Who fetches fewer than Celery does by itself wants it so.
"""

from __future__ import annotations

import time
from typing import Any, Final

from kombu.transport import virtual

__all__ = ["Prefetch"]

_CELERYS_OWN: Final = 4
_AT_MOST: Final = 8
"""Messages a child. More than that gave nothing more."""

_STAYS_SECONDS: Final = 1.0
"""It changes back after so long without rows that went together, and not again within so long: each change is a round
trip to RabbitMQ."""


class Prefetch:
    """That of one worker; `look()` is called in each turn of its loop, which tells the broker what has changed."""

    def __init__(self, consumer: Any) -> None:
        self._consumer = consumer
        self._more = 0
        self._gathered_at = self._changed_at = -_STAYS_SECONDS

    def look(self, *, gathered: bool, others: bool) -> None:
        """Whether rows have just gone together, and whether the worker has anything but brief rows."""
        now = time.monotonic()
        if gathered:
            self._gathered_at = now
        if self._more:
            if others or now - self._gathered_at > _STAYS_SECONDS:
                self._consumer.qos.decrement_eventually(self._more)
                self._more, self._changed_at = 0, now
        elif gathered and not others and now - self._changed_at > _STAYS_SECONDS:
            self._more, self._changed_at = self._raised_by(), now

    def _raised_by(self) -> int:
        consumer, qos = self._consumer, self._consumer.qos
        each = consumer.prefetch_multiplier
        if not _CELERYS_OWN <= each < _AT_MOST or qos.value < consumer.max_prefetch_count or not self._can_change():
            return 0  # it is less than the shop's while a worker that has connected anew has tasks still
        before: int = qos.value
        raised: int = qos.increment_eventually((_AT_MOST - each) * consumer.pool.num_processes)
        return raised - before  # `worker_eta_task_limit` bounds it

    def _can_change(self) -> bool:
        """RabbitMQ counts for all of a channel's consumers, where it still can: not with quorum queues."""
        consumer = self._consumer
        counts_for_all = getattr(consumer, "qos_global", None) is not False  # older versions of Celery do not say
        return counts_for_all or isinstance(consumer.task_consumer.channel, virtual.Channel)
