"""Every error this package raises, in one tree.

    ConfectError
    ├── ConfigurationError            found at import or at start; fix the code or the settings
    │   ├── InvalidSettings           a misspelt or unusable `confect_…` setting
    │   ├── SchemaOutOfDate           the table is missing or of another version
    │   ├── InvalidCron               a cron whose name, schedule, function or arguments cannot be
    │   ├── DuplicateFunction         two functions under one name
    │   └── ServiceError              a parameter that no service can fill
    ├── UnknownFunction               no function of that name is registered
    ├── Unpublishable                 no message can be made of a row
    ├── Unreadable                    a row holds what somebody wrote by hand, and nobody can read
    ├── SchedulingError               refused at the call, before any row exists
    │   ├── NotSchedulable            public functions and queries are not scheduled
    │   ├── InvalidArguments          the arguments do not fit, or are not JSON
    │   ├── ArgumentsTooLarge
    │   ├── DelayOutOfRange
    │   ├── TooManyScheduled          more than one mutation may schedule
    │   └── CannotCancelItself
    ├── TimeError
    │   ├── NaiveDateTime             a datetime without a zone
    │   ├── InvalidTime               unreadable, out of range, or of the wrong type
    │   └── NonexistentTime           a wall time in a DST gap or fold, under disambiguate="reject"
    └── DataError
        ├── UnknownTable
        ├── UnknownField
        ├── InvalidFilter
        ├── NotFound
        ├── NotUnique
        └── SystemTableReadOnly

Each carries its facts as fields, and says in its message what to do next. All of them survive pickling, so they cross
from a pool's child to the worker and into a result backend unharmed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = [
    "ArgumentsTooLarge",
    "CannotCancelItself",
    "ConfectError",
    "ConfigurationError",
    "DataError",
    "DelayOutOfRange",
    "DuplicateFunction",
    "InvalidArguments",
    "InvalidCron",
    "InvalidFilter",
    "InvalidSettings",
    "InvalidTime",
    "NaiveDateTime",
    "NonexistentTime",
    "NotFound",
    "NotSchedulable",
    "NotUnique",
    "SchedulingError",
    "SchemaOutOfDate",
    "ServiceError",
    "SystemTableReadOnly",
    "TimeError",
    "TooManyScheduled",
    "UnknownField",
    "UnknownFunction",
    "UnknownTable",
    "Unpublishable",
    "Unreadable",
]


def _restore(cls: type[ConfectError], args: tuple[Any, ...], fields: dict[str, Any]) -> ConfectError:
    error = cls.__new__(cls, *args)
    error.args = args
    error.__dict__.update(fields)
    return error


def _close(matches: Sequence[str]) -> str:
    return f" Did you mean {' or '.join(repr(match) for match in matches)}?" if matches else ""


class ConfectError(Exception):
    """The root: catch it to catch everything this package raises on purpose."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (type(self), self.args, self.__dict__.copy())


class ConfigurationError(ConfectError):
    """The application is put together wrongly; it shows at import or at start, never while a job runs."""


class InvalidSettings(ConfigurationError):
    """A `confect_…` setting is unknown or unusable. `problems` maps the setting's name to what is wrong with it."""

    def __init__(self, problems: Mapping[str, str]) -> None:
        self.problems = dict(problems)
        listed = "; ".join(f"{name}: {problem}" for name, problem in self.problems.items())
        super().__init__(f"Unusable Celery configuration: {listed}.")


class SchemaOutOfDate(ConfigurationError):
    """The table in the database is at revision `found`, None where there is none; this version needs `needed`."""

    def __init__(self, found: str | None, needed: str) -> None:
        self.found = found
        self.needed = needed
        what = f"is at revision {found}" if found else "does not exist"
        super().__init__(
            f"The table of scheduled functions {what}, this version needs revision {needed}. "
            "Run `celery -A <your app> confect migrate` (with --sql to print it for a DBA)."
        )


class InvalidCron(ConfigurationError):
    """The cron `name` cannot be; `reason` says why."""

    def __init__(self, name: str, reason: str) -> None:
        self.name = name
        self.reason = reason
        super().__init__(f"The cron {name!r} cannot be: {reason}.")


class DuplicateFunction(ConfigurationError):
    """Two functions were registered under `name`."""

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(f"Two functions are called {name!r}. Rename one, or give it another group.")


class ServiceError(ConfigurationError):
    """`parameter` of `function` asks for something that cannot be injected."""

    def __init__(self, function: str, parameter: str | None, reason: str) -> None:
        self.function = function
        self.parameter = parameter
        self.reason = reason
        where = f"Parameter {parameter!r} of {function!r}" if parameter else f"Function {function!r}"
        super().__init__(f"{where}: {reason}")


class UnknownFunction(ConfectError):
    """No function called `name` is registered; `close` holds the most similar names."""

    def __init__(self, name: str, close: Sequence[str] = ()) -> None:
        self.name = name
        self.close = tuple(close)
        super().__init__(
            f"No function {name!r} is registered.{_close(self.close)} "
            "Check the spelling, and that the module defining it is imported by the worker."
        )


class Unpublishable(ConfectError):
    """No message can be made of the row of `name`, now or ever; `reason` tells why. The row ends failed."""

    def __init__(self, name: str, reason: str) -> None:
        self.name, self.reason = name, reason
        super().__init__(f"No message can be made of {name!r}: {reason}. Correct its options and schedule it again.")


class Unreadable(ConfectError):
    """The row `id` holds what nobody can read; `reason` tells what. A message for it starts nothing, and a dispatcher
    ends it failed, with what it held in its error's data."""

    def __init__(self, id: str, reason: str) -> None:
        self.id, self.reason = id, reason
        super().__init__(f"The row {id} cannot be read: {reason}. Look at its error, and schedule what it was anew.")


class SchedulingError(ConfectError):
    """A request to the scheduler was refused; no row was written or changed."""


class NotSchedulable(SchedulingError):
    """`function` may not be scheduled; `alternative` says what to do instead."""

    def __init__(self, function: str, reason: str, alternative: str) -> None:
        self.function = function
        self.reason = reason
        self.alternative = alternative
        super().__init__(f"{function!r} cannot be scheduled: {reason}. {alternative}")


class InvalidArguments(SchedulingError):
    """The arguments do not fit `function`. `details` are pydantic's errors (type, loc, msg), without the input."""

    def __init__(self, function: str, details: Sequence[Mapping[str, Any]]) -> None:
        self.function = function
        self.details = [dict(detail) for detail in details]
        listed = "; ".join(
            f"{'.'.join(str(part) for part in detail.get('loc', ())) or 'args'}: {detail.get('msg', 'invalid')}"
            for detail in self.details
        )
        super().__init__(f"The arguments do not fit {function!r}: {listed}.")


class ArgumentsTooLarge(SchedulingError):
    """The encoded arguments are `size` bytes; at most `limit` are kept."""

    def __init__(self, function: str, size: int, limit: int) -> None:
        self.function = function
        self.size = size
        self.limit = limit
        super().__init__(
            f"The arguments of {function!r} take {size:,} bytes, the limit is {limit:,}. "
            "Store the data in a table and schedule with its id."
        )


class DelayOutOfRange(SchedulingError):
    """The asked time lies outside the bounds. All three are texts such as `1s` or `1830d`."""

    def __init__(self, asked: str, minimum: str, maximum: str) -> None:
        self.asked = asked
        self.minimum = minimum
        self.maximum = maximum
        super().__init__(
            f"Cannot schedule {asked} ahead: the delay must lie between {minimum} and {maximum} "
            "(settings confect_min_delay and confect_max_delay)."
        )


class TooManyScheduled(SchedulingError):
    """One mutation tried to schedule more than `limit` functions."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        super().__init__(
            f"One mutation may schedule at most {limit:,} functions. Schedule one function that schedules the rest."
        )


class CannotCancelItself(SchedulingError):
    """A running mutation tried to cancel or reschedule its own row, `id`."""

    def __init__(self, id: str) -> None:
        self.id = id
        super().__init__(
            f"The mutation {id} is running and cannot cancel or reschedule itself. "
            "Return early, raise, or schedule the function anew."
        )


class TimeError(ConfectError):
    """A duration or a point in time cannot be used."""


class NaiveDateTime(TimeError, TypeError):
    """A datetime without a zone was given; it could mean any of 40 instants."""

    def __init__(self, value: object) -> None:
        self.value = str(value)
        super().__init__(
            f"{self.value} has no time zone. Use DateTime.now(), DateTime.parse('…Z') or a datetime with tzinfo."
        )


class InvalidTime(TimeError, ValueError, TypeError):
    """A value that is no duration or time: of the wrong type, unreadable, or out of range."""

    def __init__(self, value: object, reason: str) -> None:
        self.value = str(value)
        self.reason = reason
        super().__init__(f"{self.value!r}: {reason}")


class NonexistentTime(TimeError, ValueError):
    """The wall time `value` in `zone` does not exist, or exists twice, and disambiguate="reject" was asked."""

    def __init__(self, value: object, zone: str, twice: bool) -> None:
        self.value = str(value)
        self.zone = zone
        self.twice = twice
        what = "exists twice" if twice else "does not exist"
        super().__init__(f"{self.value} {what} in {zone}. Choose disambiguate='compatible', 'earlier' or 'later'.")


class DataError(ConfectError):
    """A table, field or document is not what the caller took it for."""


class UnknownTable(DataError):
    """No table `table`; `close` holds the most similar names."""

    def __init__(self, table: str, close: Sequence[str] = ()) -> None:
        self.table = table
        self.close = tuple(close)
        super().__init__(f"There is no table {table!r}.{_close(self.close)}")


class UnknownField(DataError):
    """Table `table` has no field `field`; `close` holds the most similar names."""

    def __init__(self, table: str, field: str, close: Sequence[str] = ()) -> None:
        self.table = table
        self.field = field
        self.close = tuple(close)
        super().__init__(f"Table {table!r} has no field {field!r}.{_close(self.close)}")


class InvalidFilter(DataError):
    """A filter, an order or a cursor that cannot be turned into SQL; `reason` says why."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


class NotFound(DataError):
    """Table `table` has no document `id`."""

    def __init__(self, table: str, id: object) -> None:
        self.table = table
        self.id = str(id)
        super().__init__(f"Table {table!r} has no document {self.id!r}.")


class NotUnique(DataError):
    """More than one document of `table` matched where `unique()` allows one at most."""

    def __init__(self, table: str) -> None:
        self.table = table
        super().__init__(f"More than one document of {table!r} matches. Use first(), or narrow the filter.")


class SystemTableReadOnly(DataError):
    """A system table was written by hand."""

    def __init__(self, table: str, operation: str) -> None:
        self.table = table
        self.operation = operation
        super().__init__(
            f"{operation}() is refused on {table!r}. Use scheduler.run_after/run_at to add, "
            "scheduler.reschedule to move, delete(id) or scheduler.cancel(id) to cancel."
        )
