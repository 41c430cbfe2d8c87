"""Publishing right after the commit, before the time has come."""

from __future__ import annotations

from confect_celery.runtime.dispatcher import pause
from confect_celery.runtime.outbox import Outbox
from confect_celery.runtime.transport import CeleryTransport
from confect_celery.settings import Settings
from confect_celery.store import Delivery
from confect_celery.timing import Clock

__all__ = ["PublishAhead"]


class PublishAhead:
    """What the scheduling process does with rows that are nearly due: a worker holds their messages until it is time.

    With quorum queues a held message takes the place of another, for RabbitMQ lets no consumer have more of them than
    it first asked for: eight that are due in two seconds would keep out one that is due in one. There, only what a
    dispatcher might find too late goes out ahead; the rest is left to dispatchers, who publish at the very time.
    """

    def __init__(self, outbox: Outbox, transport: CeleryTransport, clock: Clock, settings: Settings) -> None:
        self._outbox = outbox
        self._transport = transport
        self._clock = clock
        self._found_within = pause(settings)

    def __call__(self, delivery: Delivery) -> None:
        """Publish it, or give it back to the table."""
        if delivery.due <= self._clock.now() + self._found_within or self._transport.holding_is_free():
            self._outbox.publish(delivery)
        else:
            self._outbox.give_back(delivery, delivery.due)
