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
                self._lower()
                self._changed_at = now
        elif gathered and not others and now - self._changed_at > _STAYS_SECONDS:
            self._raise()
            self._changed_at = now

    def _raise(self) -> None:
        consumer, qos = self._consumer, self._consumer.qos
        each = consumer.prefetch_multiplier
        if not (_CELERYS_OWN <= each < _AT_MOST and self._can_change()):
            return
        before = qos.value
        if before < consumer.max_prefetch_count:  # who has connected anew while tasks ran gets its own back by and by
            return
        # `worker_eta_task_limit` may bound it.
        self._more = qos.increment_eventually((_AT_MOST - each) * consumer.pool.num_processes) - before

    def _lower(self) -> None:
        consumer, qos = self._consumer, self._consumer.qos
        more, self._more = self._more, 0
        qos.decrement_eventually(max(min(more, qos.value - consumer.max_prefetch_count), 0))  # Celery may have set it

    def _can_change(self) -> bool:
        """RabbitMQ counts for all of a channel's consumers, where it still can: not with quorum queues."""
        consumer = self._consumer
        counts_for_all = getattr(consumer, "qos_global", None) is not False  # older versions of Celery do not say
        return counts_for_all or isinstance(consumer.task_consumer.channel, virtual.Channel)
