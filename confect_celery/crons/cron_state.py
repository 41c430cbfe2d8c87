"""What is known of a cron, for people who watch."""

from __future__ import annotations

from dataclasses import dataclass

from confect_celery.timing import DateTime

__all__ = ["CronState"]


@dataclass(frozen=True, slots=True)
class CronState:
    """A cron of the code and what the table knows of it.

    `next_at` is None until a dispatcher has seen it, or while the table has another schedule for it (`stale`), as
    happens while a deploy rolls. `missed` counts fires that nobody was there for, `skipped` those that found the last
    run still pending or running.
    """

    name: str
    spec: str
    function: str
    next_at: DateTime | None
    last_at: DateTime | None
    last_id: str | None
    last_state: str | None
    missed: int
    skipped: int
    stale: bool
