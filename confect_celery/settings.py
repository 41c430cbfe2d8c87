"""The `confect_…` settings of Celery's configuration, checked once at start."""

from __future__ import annotations

import datetime as dt
import difflib
from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from confect_celery.errors import InvalidSettings
from confect_celery.timing import Duration

__all__ = ["PREFIX", "Settings"]

PREFIX: Final = "confect_"


def _duration(value: object) -> object:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return Duration.seconds(value)
    return Duration.of(value) if isinstance(value, (dt.timedelta, Duration)) else value


_LOOKS: Final = 0.8
"""A dispatcher sleeps for so much of `poll_interval` at the most: what is due that far ahead, as the shortest delay is
by default, is found in time."""

_ROOM: Final = 1.125
"""So many times that sleep ahead must be what is found for sure: there is room for the commit, and for the look."""

Seconds = Annotated[Duration, BeforeValidator(_duration)]
"""A `Duration`, a timedelta, or a number of seconds, as everywhere in Celery's configuration."""


class Settings(BaseModel):
    """What `app.conf` says under `confect_…`. Durations are seconds, timedeltas or `Duration`s.

    >>> Settings.read({"confect_horizon": 5, "task_default_queue": "shop"}).horizon
    Duration.seconds(5)
    """

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    default_database_url: ClassVar[str] = "sqlite:///confect.db"
    """Where the table is when no setting says so; a framework that has a database of its own puts it there."""

    database_url: str = Field(default_factory=lambda: Settings.default_database_url)
    # `schema` is a name of pydantic's own, hence the alias.
    schema_: str | None = Field(default=None, alias="schema", pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    horizon: Seconds = Duration.seconds(2)
    poll_interval: Seconds = Duration.seconds(1)
    batch_size: int = Field(default=500, ge=1, le=10_000)
    batch: int = Field(default=50, ge=1, le=1000)
    gathered: int = Field(default=20, ge=1, le=1000)
    batch_waits_for_disk: bool = True
    redelivery: Seconds = Duration.seconds(30)
    time_limit: Seconds = Duration.seconds(600)
    min_delay: Seconds = Duration.seconds(1)
    max_delay: Seconds = Duration.days(5 * 366)
    retention: Seconds = Duration.days(7)
    dispatcher: Literal["worker", "beat", "off"] = "worker"
    show_args: bool = True
    events: bool = True
    capture: Literal["off", "mirror", "durable"] = "off"
    capture_min_countdown: Seconds = Duration.zero

    @cached_property
    def pause(self) -> Duration:
        """How long a dispatcher sleeps at the most: a row must be seen before it is due, however long the interval was
        set."""
        return min(self.poll_interval, self.horizon / 2) * _LOOKS

    @cached_property
    def delays(self) -> range:
        """All that may be asked for, in microseconds."""
        return range(self.min_delay.to_micros(), self.max_delay.to_micros() + 1)

    @cached_property
    def found_within(self) -> Duration:
        """What is due later than that is found in time by a dispatcher; what is due sooner, its scheduler publishes."""
        return self.pause * _ROOM

    @model_validator(mode="after")
    def _bounds(self) -> Settings:
        positive = ("horizon", "poll_interval", "redelivery", "time_limit", "max_delay")
        for name in positive:
            if getattr(self, name) <= Duration.zero:
                raise ValueError(f"{name}: must be longer than 0")
        for name in ("min_delay", "retention", "capture_min_countdown"):
            if getattr(self, name) < Duration.zero:
                raise ValueError(f"{name}: must not be negative")
        if self.max_delay <= self.min_delay:
            raise ValueError("max_delay: must be longer than min_delay")
        if self.redelivery <= self.horizon:
            raise ValueError("redelivery: must be longer than horizon, or every message is published twice")
        return self

    @classmethod
    def read(cls, conf: Mapping[str, Any]) -> Settings:
        """Read the keys that start with `confect_`, after the namespace if Celery's configuration has one, as in
        `CELERY_CONFECT_HORIZON`; the others are Celery's.

        Raises InvalidSettings, which names every misspelt or unusable key.
        """
        written = _written(conf)
        given = {name: conf[PREFIX + name] for name in written}
        known = {field.alias or name: name for name, field in cls.model_fields.items()}
        problems = {}
        for key in given.keys() - known.keys():
            close = difflib.get_close_matches(key, known, 1)
            prefix = written[key][: -len(key)]
            meant = f", did you mean {prefix}{close[0].upper() if prefix.isupper() else close[0]}?" if close else ""
            problems[written[key]] = f"no such setting{meant}"
        try:
            settings = cls.model_validate({key: value for key, value in given.items() if key in known})
        except ValidationError as error:
            for detail in error.errors(include_url=False, include_input=False):
                message = detail["msg"].removeprefix("Value error, ")
                name, _, rest = message.partition(": ")
                located = ".".join(map(str, detail["loc"])) or name
                problems[written.get(located, PREFIX + located)] = message if detail["loc"] else rest
            raise InvalidSettings(problems) from None
        if problems:
            raise InvalidSettings(problems)
        return settings

    def check_broker(self, transport_options: Mapping[str, Any]) -> None:
        """Refuse a horizon beyond the broker's visibility timeout: a held message would be delivered twice."""
        timeout = transport_options.get("visibility_timeout")
        if timeout is not None and self.horizon >= Duration.seconds(float(timeout)):
            raise InvalidSettings(
                {"confect_horizon": f"{self.horizon} is not shorter than the broker's visibility_timeout, {timeout} s"}
            )


def _written(conf: Mapping[str, Any]) -> dict[str, str]:
    """The names of our settings in `conf`, each with its key as the shop wrote it, namespace and all."""
    namespace: str = getattr(getattr(conf, "data", conf), "prefix", None) or ""
    ours = (namespace + (PREFIX.upper() if namespace.isupper() else PREFIX), PREFIX)
    return {key[len(prefix) :].lower(): key for prefix in ours for key in conf if key.startswith(prefix)}
