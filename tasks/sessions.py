"""A session that is deleted at the very moment it expires.

Shows: `run_at` with a point in time; moving a pending function with `reschedule` instead of cancelling and
scheduling anew; and the other way to cancel, deleting the row from `_scheduled_functions`. It keeps its place in
the table, with the state `canceled`.
"""

from __future__ import annotations

from pydantic import BaseModel

from confect_celery import Clock, DatabaseReader, DatabaseWriter, DateTime, ScheduledFunction, Scheduler
from tasks.app import confect
from tasks.delays import Delays
from tasks.users import UserRef

__all__ = ["Session", "SessionRef", "clean_up", "log_in", "log_out", "prolong"]

sessions = confect.group("sessions")


class SessionRef(BaseModel):
    """A session."""

    session_id: str


class Session(SessionRef):
    """A session, and when it ends."""

    expires_at: DateTime


def _cleanup(db: DatabaseReader, session_id: str) -> ScheduledFunction | None:
    return (
        db.table("_scheduled_functions")
        .filter(
            lambda q: q.and_(
                q.eq(q.field("name"), clean_up.name),
                q.eq(q.field("state.kind"), "pending"),
                q.eq(q.field("args.session_id"), session_id),
            )
        )
        .unique()
    )


@sessions.internal_mutation
def clean_up(args: SessionRef, db: DatabaseWriter) -> None:
    """Delete an expired session."""
    db.table("sessions").delete(args.session_id)


@sessions.mutation
def log_in(args: UserRef, db: DatabaseWriter, scheduler: Scheduler, clock: Clock, delays: Delays) -> Session:
    """Begin a session."""
    expires_at = clock.now() + delays.session
    session_id = db.table("sessions").insert({"user_id": args.user_id, "expires_at": expires_at})
    scheduler.run_at(expires_at, clean_up, SessionRef(session_id=session_id))
    return Session(session_id=session_id, expires_at=expires_at)


@sessions.mutation
def prolong(args: Session, db: DatabaseWriter, scheduler: Scheduler) -> None:
    """Have the session end at another time."""
    cleanup = _cleanup(db, args.session_id)
    if cleanup is not None and scheduler.reschedule(cleanup.id, args.expires_at):
        db.table("sessions").patch(args.session_id, {"expires_at": args.expires_at})


@sessions.mutation
def log_out(args: SessionRef, db: DatabaseWriter) -> None:
    """End the session now."""
    cleanup = _cleanup(db, args.session_id)
    if cleanup is not None:
        db.table("_scheduled_functions").delete(cleanup.id)
        db.table("sessions").delete(args.session_id)
