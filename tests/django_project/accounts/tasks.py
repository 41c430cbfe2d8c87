"""Functions in Confect's style, found by Celery's autodiscovery."""

import time

import sqlalchemy as sa
from pydantic import BaseModel
from sqlalchemy.orm import Session
from webshop.celery import app, confect

from accounts.models import Account, Reminder
from confect_celery import DatabaseReader, DatabaseWriter, Duration, MutationRunner, ScheduledFunctionId, Scheduler

accounts = confect.group("accounts")


class AccountRef(BaseModel):
    account_id: str


class Register(BaseModel):
    email: str
    delay: float = 24 * 3600


class Text(AccountRef):
    text: str = "Please verify your email"
    seconds: float = 0


class Refused(Exception):
    pass


@accounts.internal_mutation
def remind(args: Text, me: ScheduledFunctionId | None) -> None:
    """With the ORM alone."""
    account = Account.objects.get(pk=args.account_id)
    if not account.verified:
        Reminder.objects.create(account=account, text=args.text, row_id=me)
        time.sleep(args.seconds)


@accounts.internal_mutation
def remind_and_fail(args: Text, me: ScheduledFunctionId | None) -> None:
    Reminder.objects.create(account_id=args.account_id, text=args.text, row_id=me)
    raise Refused("after the write")


@accounts.internal_mutation
def remind_every_way(args: Text, db: DatabaseWriter, connection: sa.Connection, session: Session) -> None:
    """The ORM, Confect's tables and SQLAlchemy, all in one transaction."""
    account = Account.objects.get(pk=args.account_id)
    Reminder.objects.create(account=account, text="by the ORM")
    db.table("reminders").insert({"account_id": account.pk, "text": "by db.table"})
    insert = sa.text(
        "INSERT INTO reminders (account_id, text) SELECT account_id, :text FROM reminders WHERE text = :of"
    )
    connection.execute(insert, {"text": "by the connection", "of": "by the ORM"})
    session.execute(insert, {"text": "by the session", "of": "by the ORM"})
    assert Reminder.objects.filter(account=account).count() == 4
    assert db.table("reminders").count() >= 4
    if args.text == "fail":
        raise Refused(args.text)


@accounts.mutation
def register(args: Register, scheduler: Scheduler) -> str:
    account = Account.objects.create(email=args.email)
    ref = Text(account_id=str(account.pk))
    scheduler.run_after(Duration.seconds(args.delay), remind, ref)
    return str(account.pk)


@accounts.mutation
def register_two(args: Register, run: MutationRunner) -> None:
    """The second fails, and takes back nothing but its own."""
    run(register, args)
    try:
        run(register_and_fail, args)
    except Refused:
        pass


@accounts.internal_mutation
def register_and_fail(args: Register, run: MutationRunner) -> None:
    run(register, args)
    raise Refused(args.email)


@accounts.query
def unverified(db: DatabaseReader) -> list[str]:
    table = db.table("accounts_account").filter(lambda q: q.eq(q.field("verified"), False))
    return [account.email for account in table.order("asc", by="email").collect()]


@accounts.internal_action
def call_out(args: Text, run: MutationRunner, scheduler: Scheduler) -> None:
    run(remind, args)
    scheduler.run_after(Duration.seconds(1), remind, Text(account_id=args.account_id, text="second"))


@app.task
def plain(account_id: str) -> None:
    """A task of Celery's own."""
    Reminder.objects.create(account_id=account_id, text="by a plain task")
