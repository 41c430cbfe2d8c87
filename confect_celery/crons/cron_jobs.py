"""The crons of an app."""

from __future__ import annotations

from collections.abc import Iterator

from confect_celery.crons.cron_job import CronJob
from confect_celery.errors import InvalidCron

__all__ = ["CronJobs"]


class CronJobs:
    """Crons by name.

    >>> from confect_celery import Duration
    >>> crons = CronJobs().add(CronJob("a", "0 9 * * *", "f")).add(CronJob("b", Duration.hours(1), "f"))
    >>> [cron.name for cron in crons]
    ['a', 'b']
    """

    def __init__(self) -> None:
        self._jobs: dict[str, CronJob] = {}

    def add(self, job: CronJob) -> CronJobs:
        """Add one, and give back the same crons. Raises InvalidCron for a name that is there already."""
        if job.name in self._jobs:
            raise InvalidCron(job.name, "there is another cron of this name")
        self._jobs[job.name] = job
        return self

    def __iter__(self) -> Iterator[CronJob]:
        return iter(list(self._jobs.values()))

    def __len__(self) -> int:
        return len(self._jobs)
