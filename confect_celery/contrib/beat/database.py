"""With django-celery-beat."""

from __future__ import annotations

from django_celery_beat.schedulers import DatabaseScheduler

from confect_celery.contrib.beat import ConfectBeat

__all__ = ["ConfectDatabaseScheduler"]


class ConfectDatabaseScheduler(ConfectBeat, DatabaseScheduler):  # type: ignore[misc, unused-ignore]
    """`celery beat -S confect-django`."""
