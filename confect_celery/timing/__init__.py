"""Durations, points in time, clocks, and waits that differ: values, with no I/O but the system's clock and dice."""

from confect_celery.timing.backoff import jitter
from confect_celery.timing.clock import Clock, SettableClock, SystemClock
from confect_celery.timing.date_time import DateTime, Disambiguate
from confect_celery.timing.duration import Duration

__all__ = ["Clock", "DateTime", "Disambiguate", "Duration", "SettableClock", "SystemClock", "jitter"]
