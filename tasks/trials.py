"""A trial that ends after 14 days, unless the user subscribes.

Shows: keeping the id that the scheduler gives back, and cancelling by it. Shorter than the search in `users`, at the
price of a column. Both commit or roll back with the rest of the mutation.
"""

from __future__ import annotations

from pydantic import BaseModel

from confect_celery import DatabaseWriter, Scheduler
from tasks.app import confect
from tasks.delays import Delays
from tasks.services import Mailer
from tasks.users import UserRef

__all__ = ["Subscribed", "TrialRef", "end", "start", "subscribe"]

trials = confect.group("trials")


class TrialRef(BaseModel):
    """A trial."""

    trial_id: str


class Subscribed(BaseModel):
    """Whether the subscription came before the trial's end."""

    in_time: bool


@trials.internal_mutation
def end(args: TrialRef, db: DatabaseWriter, mailer: Mailer) -> None:
    """End the trial, and tell the user."""
    trial = db.table("trials").get(args.trial_id)
    db.table("trials").patch(args.trial_id, {"status": "ended"})
    mailer.send(db.table("users").get(trial.user_id).email, "Your trial has ended")


@trials.mutation
def start(args: UserRef, db: DatabaseWriter, scheduler: Scheduler, delays: Delays) -> TrialRef:
    """Begin a trial."""
    trial = TrialRef(trial_id=db.table("trials").insert({"user_id": args.user_id, "status": "active"}))
    end_id = scheduler.run_after(delays.trial, end, trial)
    db.table("trials").patch(trial.trial_id, {"end_function_id": end_id})
    return trial


@trials.mutation
def subscribe(args: TrialRef, db: DatabaseWriter, scheduler: Scheduler) -> Subscribed:
    """Subscribe. `cancel` tells whether it came in time: False when the trial has ended already."""
    trial = db.table("trials").get(args.trial_id)
    in_time = scheduler.cancel(trial.end_function_id)
    db.table("trials").patch(args.trial_id, {"status": "subscribed"})
    return Subscribed(in_time=in_time)
