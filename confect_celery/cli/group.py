"""The command's root, and what all of its commands share: the app, errors, times."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import Any, Final

import click
from celery.bin.base import CeleryCommand, handle_preload_options

from confect_celery.app import Confect
from confect_celery.errors import ConfectError, InvalidTime
from confect_celery.timing import DateTime, Duration

__all__ = ["WHEN", "command", "confect", "find", "parse_when"]

_SHORT: Final = re.compile(r"(\d+(?:\.\d+)?)(w|d|h|m|s)")
_UNITS: Final = {
    "w": Duration.weeks,
    "d": Duration.days,
    "h": Duration.hours,
    "m": Duration.minutes,
    "s": Duration.seconds,
}
WHEN: Final = "a time such as 2030-01-01T09:00:00Z, or from now: 2h30m, 90s, P1D"


@click.group(name="confect", context_settings={"help_option_names": ["-h", "--help"]})
def confect() -> None:
    """The durable scheduler.

    Exit codes: 0 done; 1 a fault, or something asked for was not done; 2 the command was written wrongly.
    """


def find(context: click.Context) -> Confect:
    """The app's Confect."""
    app = context.obj.app
    app.loader.import_default_modules()
    app.finalize(auto=True)
    found = getattr(app, "confect", None)
    if not isinstance(found, Confect):
        raise click.ClickException(f"The app {app.main!r} has no Confect: make one with Confect(app).")
    return found


def command(name: str) -> Callable[[Callable[..., Any]], click.Command]:
    """A command of Celery's kind, whose function is given the Confect; what goes wrong is one line and exit code 1."""

    def wrap(function: Callable[..., Any]) -> click.Command:
        @click.pass_context
        @handle_preload_options
        @functools.wraps(function)
        def run(context: click.Context, *args: Any, **options: Any) -> Any:
            options = {key: value for key, value in options.items() if key in known}
            try:
                return function(find(context), *args, **options)
            except (click.ClickException, click.exceptions.Exit, click.Abort):
                raise
            except ConfectError as error:
                raise click.ClickException(str(error)) from None
            except Exception as error:
                first = str(error).strip().splitlines() or [""]
                raise click.ClickException(f"{type(error).__name__}: {first[0]}") from None

        made: click.Command = click.command(name, cls=CeleryCommand)(run)
        known = {parameter.name for parameter in made.params}
        return made

    return wrap


def parse_when(text: str) -> Duration | DateTime:
    """A time, or how far off it is; raises BadParameter."""
    if text and _SHORT.sub("", text) == "":
        parts = (_UNITS[unit](float(number)) for number, unit in _SHORT.findall(text))
        return sum(parts, Duration.zero)
    for parse in (Duration.parse, DateTime.parse):
        try:
            return parse(text)
        except (InvalidTime, ConfectError):
            continue
    raise click.BadParameter(f"{text!r} is no time; give {WHEN}.")
