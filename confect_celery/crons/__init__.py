"""Crons: functions that run again and again, by the wall clock or at an interval."""

from confect_celery.crons.cron_job import CronJob
from confect_celery.crons.cron_jobs import CronJobs
from confect_celery.crons.cron_state import CronState
from confect_celery.crons.schedule import Fires, Schedule, schedule_of

__all__ = ["CronJob", "CronJobs", "CronState", "Fires", "Schedule", "schedule_of"]
