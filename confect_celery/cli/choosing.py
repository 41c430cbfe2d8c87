"""The flags that choose rows, as one SQL statement."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import click

from confect_celery.app import Confect
from confect_celery.cli.group import WHEN, parse_when
from confect_celery.store import Query, ScheduledFunction, StateKind
from confect_celery.timing import DateTime, Duration

__all__ = ["Choice", "choosing"]

F = TypeVar("F", bound=Callable[..., Any])
_STATES = [kind.value for kind in StateKind]


@dataclass(frozen=True)
class Choice:
    """Which rows; everything that is given must hold."""

    states: tuple[str, ...] = ()
    name: str | None = None
    kind: str | None = None
    queue: str | None = None
    due_before: str | None = None
    due_after: str | None = None
    args: tuple[str, ...] = ()
    parent: str | None = None

    @property
    def empty(self) -> bool:
        """Whether nothing is asked, so that every row is chosen."""
        return self == Choice()

    def query(self, confect: Confect, db: Any) -> Query[ScheduledFunction]:
        """The rows, in the order of their time."""
        query: Query[ScheduledFunction] = db.table("_scheduled_functions")
        now = confect.clock.now()
        if self.states:
            query = query.filter(lambda q: q.in_(q.field("state.kind"), list(self.states)))
        if (name := self.name) is not None:
            query = query.filter(lambda q: q.matches(q.field("name"), name))
        for path, value in (("kind", self.kind), ("options.queue", self.queue), ("parent_id", self.parent)):
            if value is not None:
                query = query.filter(lambda q, path=path, value=value: q.eq(q.field(path), value))  # type: ignore[misc]
        if self.due_before is not None:
            before = _time(self.due_before, now)
            query = query.filter(lambda q: q.lt(q.field("scheduled_time"), before))
        if self.due_after is not None:
            after = _time(self.due_after, now)
            query = query.filter(lambda q: q.gte(q.field("scheduled_time"), after))
        for arg in self.args:
            path, _, text = arg.partition("=")
            values = _values(text)
            query = query.filter(lambda q, path=path, values=values: q.in_(q.field(f"args.{path}"), values))  # type: ignore[misc]
        return query.order("asc", by="scheduled_time")


def _time(text: str, now: DateTime) -> DateTime:
    when = parse_when(text)
    return now + when if isinstance(when, Duration) else when


def _values(text: str) -> list[Any]:
    # On a command line 7 may be a number or a text: either will do.
    try:
        parsed = json.loads(text)
    except ValueError:
        return [text]
    return [text, parsed] if isinstance(parsed, (int, float, bool)) else [text]


def _check_arg(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    for value in values:
        path, equals, _ = value.partition("=")
        if not equals or not path:
            raise click.BadParameter(f"{value!r} is not as user_id=7 or meta.source=web.")
    return values


def _check_when(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    if value is not None:
        parse_when(value)
    return value


def choosing(states: tuple[str, ...] = ()) -> Callable[[F], F]:
    """Give a command the flags, and its function the Choice as `choice`. `states` is what holds if none is asked."""

    def wrap(function: F) -> F:
        @click.option(
            "--state", "states", multiple=True, type=click.Choice(_STATES), help="May be given several times."
        )
        @click.option("--name", help="The function; * stands for any text: 'internal/users/*'.")
        @click.option("--kind", type=click.Choice(["mutation", "action", "task"]))
        @click.option("--queue", help="What the row itself says; routes of Celery's configuration are not looked at.")
        @click.option("--due-before", callback=_check_when, metavar="WHEN", help=f"Give {WHEN}.")
        @click.option("--due-after", callback=_check_when, metavar="WHEN")
        @click.option("--arg", "args", multiple=True, callback=_check_arg, metavar="PATH=VALUE", help="user_id=7")
        @click.option("--parent", metavar="ID", help="Scheduled by this function.")
        @functools.wraps(function)
        def run(*positional: Any, **options: Any) -> Any:
            names = ("states", "name", "kind", "queue", "due_before", "due_after", "args", "parent")
            choice = Choice(**{name: options.pop(name) for name in names})
            if not choice.states and states:
                options["asked"] = not choice.empty
                choice = Choice(**{**{name: getattr(choice, name) for name in names}, "states": states})
            elif states:
                options["asked"] = True
            return function(*positional, choice=choice, **options)

        return run  # type: ignore[return-value]

    return wrap
