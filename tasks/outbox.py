"""Delivering mails: the other half of the Mailer.

Shows: an action. It has no database of its own; it reads through a query and writes through a mutation, each a
transaction by itself, and talks to the outside between them. It starts at most once: should its worker die on the
way, the row in `_scheduled_functions` ends `failed` with tag `WorkerLost`, the mail keeps its empty `sent_at`, and
a person or a program decides. To send it once more is safe with a gateway that knows the mail's id.
"""

from __future__ import annotations

from pydantic import BaseModel

from confect_celery import Clock, DatabaseReader, DatabaseWriter, Duration, MutationRunner, QueryRunner
from tasks.app import confect
from tasks.services import MailGateway

__all__ = ["Mail", "MailRef", "deliver", "mark_sent", "read"]

outbox = confect.group("outbox")


class MailRef(BaseModel):
    """A mail in the outbox."""

    mail_id: str


class Mail(BaseModel):
    """What a gateway needs to know of a mail."""

    recipient: str
    subject: str
    body: str
    sent: bool


@outbox.internal_query
def read(args: MailRef, db: DatabaseReader) -> Mail:
    """The mail."""
    mail = db.table("outbox").get(args.mail_id)
    return Mail(recipient=mail.recipient, subject=mail.subject, body=mail.body, sent=mail.sent_at is not None)


@outbox.internal_mutation
def mark_sent(args: MailRef, db: DatabaseWriter, clock: Clock) -> None:
    """Note that the gateway took the mail."""
    db.table("outbox").patch(args.mail_id, {"sent_at": clock.now()})


@outbox.internal_action(time_limit=Duration.minutes(1))
def deliver(args: MailRef, run_query: QueryRunner, run_mutation: MutationRunner, gateway: MailGateway) -> None:
    """Hand the mail to the gateway."""
    mail = run_query(read, args)
    if not mail.sent:
        gateway.deliver(args.mail_id, mail.recipient, mail.subject, mail.body)
        run_mutation(mark_sent, args)
