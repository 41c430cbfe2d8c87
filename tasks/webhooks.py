"""A webhook: taken at once, processed half a minute later.

Shows: an action called from a web view (`confect.run_action(receive, …)`), which checks, stores through a mutation,
and schedules. Storing and scheduling are two commits here, so each step can be done twice: the sender delivers
again when we die between them, `store` keeps the event once, and `process` does nothing the second time. (A
mutation that stored and scheduled would be one commit; an action is for those that must also ask the outside.)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from pydantic import BaseModel, ValidationError

from confect_celery import DatabaseWriter, MutationRunner, ScheduledFunctionId, Scheduler
from tasks.app import confect
from tasks.delays import Delays
from tasks.errors import ShopError

__all__ = ["Accepted", "Event", "EventRef", "InvalidPayload", "Webhook", "process", "receive", "store"]

_STATUS: Final = {"payment.paid": "paid", "payment.refunded": "refunded"}
"""What an event of this kind makes of its payment."""

webhooks = confect.group("webhooks")


class Webhook(BaseModel):
    """A request's body, as it came: nothing is known of it yet."""

    payload: Any


class Event(BaseModel):
    """What every payload must hold; `kind` and `data` are looked at when it is processed."""

    id: str
    kind: str
    data: dict[str, Any]


class EventRef(BaseModel):
    """A stored event."""

    event_id: str


class Accepted(BaseModel):
    """The scheduled function that will process the event."""

    function_id: ScheduledFunctionId


@dataclass(eq=False)
class InvalidPayload(ShopError):
    """The payload cannot be understood; `reason` is for its sender."""

    reason: str

    def __str__(self) -> str:
        return f"Invalid payload: {self.reason}"


@webhooks.internal_mutation
def store(args: Event, db: DatabaseWriter) -> None:
    """Keep an event, once."""
    events = db.table("webhook_events")
    if events.find(args.id) is None:
        events.insert(args)


@webhooks.internal_mutation(errors=(InvalidPayload,))
def process(args: EventRef, db: DatabaseWriter) -> None:
    """Bring an event into the shop's tables; raises InvalidPayload, and then keeps nothing but that error."""
    event = db.table("webhook_events").get(args.event_id)
    if event.processed:
        return
    if event.kind not in _STATUS:
        raise InvalidPayload(f"unknown kind {event.kind!r}")
    if "payment_id" not in event.data:
        raise InvalidPayload("data.payment_id: Field required")
    db.table("webhook_events").patch(args.event_id, {"processed": True})
    db.table("payments").patch(event.data["payment_id"], {"status": _STATUS[event.kind]})


@webhooks.action(errors=(InvalidPayload,))
def receive(args: Webhook, run_mutation: MutationRunner, scheduler: Scheduler, delays: Delays) -> Accepted:
    """Take a webhook; raises InvalidPayload, which a web view answers with 400."""
    try:
        event = Event.model_validate(args.payload)
    except ValidationError as error:
        first = error.errors()[0]
        raise InvalidPayload(f"{'.'.join(map(str, first['loc'])) or 'payload'}: {first['msg']}") from None
    run_mutation(store, event)
    return Accepted(function_id=scheduler.run_after(delays.webhook, process, EventRef(event_id=event.id)))
