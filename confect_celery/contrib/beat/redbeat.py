"""With celery-redbeat: of several beats only the one that holds its lock ticks, and so dispatches."""

from __future__ import annotations

from redbeat import RedBeatScheduler

from confect_celery.contrib.beat import ConfectBeat

__all__ = ["ConfectRedBeat"]


class ConfectRedBeat(ConfectBeat, RedBeatScheduler):  # type: ignore[misc, unused-ignore]
    """`celery beat -S confect-redbeat`."""
