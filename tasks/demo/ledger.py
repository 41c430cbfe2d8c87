"""What is so: read from the shop's own tables, and from what its mail provider says it got."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from confect_celery import DatabaseReader
from tasks import confect
from tasks.demo.expectations import Found
from tasks.demo.story import scheduled

__all__ = ["look", "name_mails"]

_GATEWAY_LINE: Final = re.compile(r"\] Mail \S+ to (\S+): (.*)$", re.MULTILINE)


def look(names: Mapping[str, str], worker_logs: Iterable[str]) -> Found:
    """Read it all; `names` gives the ids that the facts are about."""
    with confect.reader() as db:
        facts = dict(_facts(db, names))
        facts["Sessions left"] = db.table("sessions").count()
        outbox = [((mail.recipient, mail.subject), mail.sent_at is not None) for mail in db.table("outbox").collect()]
    gateway = [(to, subject) for log in worker_logs for to, subject in _GATEWAY_LINE.findall(log)]
    return Found(scheduled(), outbox, gateway, facts)


def _facts(db: DatabaseReader, names: Mapping[str, str]) -> Iterable[tuple[str, Any]]:
    for trial in db.table("trials").collect():
        yield f"The status of {names.get(trial.id, trial.id)}", trial.status
    for payment in db.table("payments").collect():
        yield f"The status of {names.get(payment.id, payment.id)}", payment.status
    for event in db.table("webhook_events").collect():
        yield f"Whether {event.id} is processed", event.processed
    for task in db.table("tasks").collect():
        yield "The task: done, priority, metadata", (task.done, task.priority, task.metadata)


def name_mails(names: dict[str, str]) -> None:
    """Have mails called by their recipients and subjects."""
    with confect.reader() as db:
        for mail in db.table("outbox").collect():
            names.setdefault(mail.id, f"{mail.recipient.partition('@')[0].title()}: {mail.subject}")
