"""A durable scheduler for shops that already run Celery.

    from confect_celery import Confect, Duration

A delayed job is a row of `_scheduled_functions` in your own database, written in your own transaction, and not a
message held in a broker or a worker. See `Confect` and `Scheduler` to start.
"""

from confect_celery.app import Confect
from confect_celery.crons import CronJob, CronJobs
from confect_celery.errors import (
    ArgumentsTooLarge,
    CannotCancelItself,
    ConfectError,
    ConfigurationError,
    DataError,
    DelayOutOfRange,
    DuplicateFunction,
    InvalidArguments,
    InvalidCron,
    InvalidFilter,
    InvalidSettings,
    InvalidTime,
    NaiveDateTime,
    NonexistentTime,
    NotFound,
    NotSchedulable,
    NotUnique,
    SchedulingError,
    SchemaOutOfDate,
    ServiceError,
    SystemTableReadOnly,
    TimeError,
    TooManyScheduled,
    UnknownField,
    UnknownFunction,
    UnknownTable,
    Unpublishable,
    Unreadable,
)
from confect_celery.functions import ActionRunner, FunctionRef, MutationRunner, QueryRunner
from confect_celery.scheduler import Scheduler
from confect_celery.settings import Settings
from confect_celery.store import (
    DatabaseReader,
    DatabaseWriter,
    Document,
    ErrorInfo,
    Page,
    ScheduledFunction,
    ScheduledFunctionId,
    State,
    StateKind,
)
from confect_celery.timing import Clock, DateTime, Duration, SettableClock, SystemClock

__all__ = [
    "ActionRunner",
    "ArgumentsTooLarge",
    "CannotCancelItself",
    "Clock",
    "Confect",
    "ConfectError",
    "ConfigurationError",
    "CronJob",
    "CronJobs",
    "DataError",
    "DatabaseReader",
    "DatabaseWriter",
    "DateTime",
    "DelayOutOfRange",
    "Document",
    "DuplicateFunction",
    "Duration",
    "ErrorInfo",
    "FunctionRef",
    "InvalidArguments",
    "InvalidCron",
    "InvalidFilter",
    "InvalidSettings",
    "InvalidTime",
    "MutationRunner",
    "NaiveDateTime",
    "NonexistentTime",
    "NotFound",
    "NotSchedulable",
    "NotUnique",
    "Page",
    "QueryRunner",
    "ScheduledFunction",
    "ScheduledFunctionId",
    "Scheduler",
    "SchedulingError",
    "SchemaOutOfDate",
    "ServiceError",
    "SettableClock",
    "Settings",
    "State",
    "StateKind",
    "SystemClock",
    "SystemTableReadOnly",
    "TimeError",
    "TooManyScheduled",
    "UnknownField",
    "UnknownFunction",
    "UnknownTable",
    "Unpublishable",
    "Unreadable",
]
