"""The shop's services: what functions ask for by annotation, beside Confect's own.

Shows: a service made from other services. A Mailer that talked to a mail server would be a lie in a mutation: a
mutation may be rolled back and run again, a mail may not. So `send` writes the mail into the outbox, in the
mutation's own transaction, and schedules its delivery there too: once the mutation commits, the mail is ordered
exactly once, and if it does not, there never was one. The talking is left to an action (`outbox.deliver`), which
starts at most once.
"""

from __future__ import annotations

import logging
import os

from confect_celery import DatabaseWriter, Scheduler
from tasks.app import confect, refs
from tasks.delays import Delays

__all__ = ["MailGateway", "Mailer", "PaymentGateway", "PaymentsDown"]

logger = logging.getLogger(__name__)


class Mailer:
    """Orders mails. For mutations only, since it writes: an action that asks for it is refused at start."""

    def __init__(self, db: DatabaseWriter, scheduler: Scheduler, delays: Delays) -> None:
        self._db = db
        self._scheduler = scheduler
        self._delays = delays

    def send(self, to: str, subject: str, body: str = "") -> str:
        """Order a mail; gives back its id in the outbox."""
        mail_id: str = self._db.table("outbox").insert({"recipient": to, "subject": subject, "body": body})
        self._scheduler.run_after(self._delays.mail, refs.internal.outbox.deliver, {"mail_id": mail_id})
        return mail_id


class MailGateway:
    """The mail provider; this one writes to the log."""

    def deliver(self, mail_id: str, to: str, subject: str, body: str) -> None:
        """Send the mail. `mail_id` is its idempotency key: a provider worth its price sends each id once."""
        logger.info("Mail %s to %s: %s", mail_id, to, subject)


class PaymentsDown(Exception):
    """The payment provider does not answer."""


class PaymentGateway:
    """The payment provider; this one answers unless `SHOP_PAYMENTS_DOWN` is set."""

    def charge(self, payment_id: str, cents: int) -> None:
        """Charge the money, once for each `payment_id`; raises PaymentsDown."""
        if os.environ.get("SHOP_PAYMENTS_DOWN"):
            raise PaymentsDown(f"no answer about payment {payment_id}")
        logger.info("Payment %s: %d cents", payment_id, cents)


def mailer(db: DatabaseWriter, scheduler: Scheduler, delays: Delays) -> Mailer:
    """A Mailer in the transaction of the mutation that asks for it."""
    return Mailer(db, scheduler, delays)


confect.provide(Mailer, mailer)
confect.provide(MailGateway, MailGateway)
confect.provide(PaymentGateway, PaymentGateway)
