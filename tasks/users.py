"""A reminder after 24 hours, taken back when it is no longer wanted.

Shows: scheduling in the same transaction as the state change that calls for it (no user without a reminder, no
reminder without a user), and finding a pending function by its name, its state and its arguments, to cancel it. The
reminder asks again whether it is wanted: cheap, and right even if somebody verifies users by hand.
"""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import BaseModel

from confect_celery import DatabaseReader, DatabaseWriter, Scheduler
from tasks.app import confect
from tasks.delays import Delays
from tasks.errors import ShopError
from tasks.services import Mailer

__all__ = [
    "EmailTaken",
    "Register",
    "Registered",
    "UserRef",
    "Verified",
    "register",
    "send_verification_reminder",
    "verify",
]

users = confect.group("users")


class Register(BaseModel):
    """A new user, and the IANA zone that their day follows."""

    email: str
    time_zone: str = "UTC"


class Registered(BaseModel):
    """The new user's id."""

    user_id: str


class UserRef(BaseModel):
    """A user."""

    user_id: str


class Verified(BaseModel):
    """How many reminders were taken back."""

    cancelled: int


@dataclass(eq=False)
class EmailTaken(ShopError):
    """Somebody has registered with `email` before."""

    email: str

    def __str__(self) -> str:
        return f"{self.email} is registered already."


@users.internal_mutation
def send_verification_reminder(args: UserRef, db: DatabaseReader, mailer: Mailer) -> None:
    """Remind a user who has not verified their address."""
    user = db.table("users").get(args.user_id)
    if not user.verified:
        mailer.send(user.email, "Please verify your email")


@users.mutation(errors=(EmailTaken,))
def register(args: Register, db: DatabaseWriter, scheduler: Scheduler, delays: Delays) -> Registered:
    """Register a user; raises EmailTaken."""
    if db.table("users").filter(lambda q: q.eq(q.field("email"), args.email)).first() is not None:
        raise EmailTaken(args.email)
    user_id = db.table("users").insert(args)
    scheduler.run_after(delays.verification_reminder, send_verification_reminder, UserRef(user_id=user_id))
    return Registered(user_id=user_id)


@users.mutation
def verify(args: UserRef, db: DatabaseWriter, scheduler: Scheduler) -> Verified:
    """Verify a user's address, and take back the reminder. From the commit on it does not start, wherever it is."""
    db.table("users").patch(args.user_id, {"verified": True})
    reminders = db.table("_scheduled_functions").filter(
        lambda q: q.and_(
            q.eq(q.field("name"), send_verification_reminder.name),
            q.eq(q.field("state.kind"), "pending"),
            q.eq(q.field("args.user_id"), args.user_id),
        )
    )
    return Verified(cancelled=sum(scheduler.cancel(reminder.id) for reminder in reminders.collect()))
