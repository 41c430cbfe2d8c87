"""Reports every month and every morning: functions that schedule their own successor.

Shows: calendar arithmetic. A month is not 30 days and a day not always 24 hours: `add(months=1)` and `add(days=1)`
count on the calendar, in a zone. Each report and its successor are one transaction: the chain neither breaks nor
forks. (It ends when a report fails; the failed row tells.) Successors count from the due time, never from the time
of running, so a worker that was late or away makes up for it and does not drift.
"""

from __future__ import annotations

from pydantic import BaseModel

from confect_celery import Clock, DatabaseWriter, DateTime, ScheduledFunctionId, Scheduler
from tasks.app import confect
from tasks.services import Mailer

__all__ = ["Daily", "Monthly", "daily", "monthly", "nine_tomorrow", "start_daily", "start_monthly"]

reports = confect.group("reports")


class Monthly(BaseModel):
    """A monthly report: number 0 is due at `first`, number 1 a month later, …"""

    first: DateTime
    number: int = 0

    @property
    def due_at(self) -> DateTime:
        """Counted from the first: from January 31 on that is February 28 and then March 31, not March 28."""
        return self.first.add(months=self.number)


class Daily(BaseModel):
    """A user's daily report."""

    user_id: str
    due_at: DateTime


class StartDaily(BaseModel):
    """Whose daily report is to begin."""

    user_id: str


def nine_tomorrow(today: DateTime) -> DateTime:
    """The next day's 9:00 in the zone of `today`, whatever its clocks are set to overnight."""
    return today.add(days=1).set(hour=9, minute=0, second=0, microsecond=0)


@reports.internal_mutation
def monthly(args: Monthly, db: DatabaseWriter, scheduler: Scheduler, itself: ScheduledFunctionId | None) -> None:
    """Make the month's report, and schedule the next."""
    db.table("reports").insert({"report_type": "monthly", "due_at": args.due_at, "made_by": itself})
    following = args.model_copy(update={"number": args.number + 1})
    scheduler.run_at(following.due_at, monthly, following)


@reports.mutation
def start_monthly(args: Monthly, scheduler: Scheduler) -> ScheduledFunctionId:
    """Have reports made from `first` on, a time such as 2026-03-08T12:00:00Z."""
    return scheduler.run_at(args.due_at, monthly, args)


@reports.internal_mutation
def daily(args: Daily, db: DatabaseWriter, scheduler: Scheduler, mailer: Mailer) -> None:
    """Make the user's report, mail it, and schedule tomorrow's."""
    user = db.table("users").get(args.user_id)
    db.table("reports").insert({"report_type": "daily", "user_id": args.user_id, "due_at": args.due_at})
    mailer.send(user.email, f"Your report at {args.due_at}")
    following = Daily(user_id=args.user_id, due_at=nine_tomorrow(args.due_at.in_zone(user.time_zone)))
    scheduler.run_at(following.due_at, daily, following)


@reports.mutation
def start_daily(args: StartDaily, db: DatabaseWriter, scheduler: Scheduler, clock: Clock) -> ScheduledFunctionId:
    """Send the user a report every morning at 9:00 of their own day, from tomorrow on."""
    user = db.table("users").get(args.user_id)
    first = Daily(user_id=args.user_id, due_at=nine_tomorrow(DateTime.now(user.time_zone, clock=clock)))
    return scheduler.run_at(first.due_at, daily, first)
