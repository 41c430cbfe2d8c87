"""`confect check`: what is wrong, and what to do about it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

import click

from confect_celery.app import Confect
from confect_celery.cli.group import command
from confect_celery.cli.render import ago, as_json, lasting, safe
from confect_celery.errors import ConfectError
from confect_celery.store import Statistics
from confect_celery.timing import Duration

__all__ = ["check"]

_MOST_SKEW: Final = Duration.seconds(0.5)
_DEFAULT_VISIBILITY: Final = 3600.0
_MARKS: Final = {"ok": "ok  ", "warn": "WARN", "fail": "FAIL"}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    grade: Literal["ok", "warn", "fail"]
    what: str


Look = Callable[[], Iterator[Finding]]


class Doctor:
    """Looks at one thing after the other; those that need the database are left out when it is away."""

    def __init__(self, confect: Confect, overdue: float, timeout: float, *, workers: bool) -> None:
        self._confect = confect
        self._overdue = Duration.seconds(overdue)
        self._timeout = timeout
        self._workers = workers

    def findings(self) -> Iterator[Finding]:
        """Everything, in the order in which it is best mended."""
        for look in (self._settings, self._functions, self._schema):
            found = list(_guarded(look))
            yield from found
            if any(finding.grade == "fail" for finding in found):
                return
        looks = [self._clock, self._dispatching, self._unknown, self._connections, self._visibility]
        if self._workers:
            looks.append(self._alive)
        for look in looks:
            yield from _guarded(look)

    def _settings(self) -> Iterator[Finding]:
        self._confect.settings.check_broker(self._confect.app.conf.broker_transport_options or {})
        yield Finding("ok", "settings")

    def _functions(self) -> Iterator[Finding]:
        self._confect.check_code()
        count = len(list(self._confect.registry))
        yield Finding("ok", f"{count} functions, {len(self._confect.crons)} crons, their services and arguments")

    def _schema(self) -> Iterator[Finding]:
        self._confect.store.check_schema()
        yield Finding("ok", "database and schema up to date")

    def _clock(self) -> Iterator[Finding]:
        database = self._confect.store.database
        offset = database.reading(database.dialect.clock_offset)
        if abs(offset) > _MOST_SKEW:
            yield Finding(
                "warn",
                f"this host's clock is off by {lasting(abs(offset))} from the database's. Jobs are on time all the "
                "same, for the database's clock decides; logs and Celery's own etas are not: run NTP.",
            )
        else:
            yield Finding("ok", f"clock within {lasting(abs(offset))} of the database's")

    def _dispatching(self) -> Iterator[Finding]:
        store, now = self._confect.store, self._confect.clock.now()
        until = now - self._overdue
        backlog = store.database.reading(lambda connection: Statistics(store.table).backlog(connection, until))
        for waiting in backlog:
            who = "no dispatcher takes them: start a worker, or `confect dispatch`"
            if waiting.state.value == "inProgress":
                who = "no sweep ends them: start a worker, or `confect dispatch`"
            since = ago(waiting.since, now)
            yield Finding(
                "fail", f"{waiting.count} {waiting.state.value} rows are overdue, the first since {since}; {who}"
            )
        if not backlog:
            yield Finding("ok", f"nothing is overdue by more than {lasting(self._overdue)}")

    def _unknown(self) -> Iterator[Finding]:
        store, registry, tasks = self._confect.store, self._confect.registry, self._confect.app.tasks
        names = store.database.reading(Statistics(store.table).names)
        defined = {ref.name for ref in registry} | set(tasks)
        gone = [f"{safe(name)} ({count})" for name, _, count in names if name not in defined]
        if gone:
            yield Finding(
                "warn",
                f"pending, but not defined by this code: {', '.join(gone)}. "
                "When due they fail, unless a worker defines them.",
            )
        else:
            yield Finding("ok", f"all {len(names)} pending functions are defined")

    def _connections(self) -> Iterator[Finding]:
        database = self._confect.store.database
        found = database.reading(database.dialect.connections)
        if found is not None:
            used, most = found
            grade: Literal["ok", "warn"] = "warn" if used > 0.9 * most else "ok"
            hint = ": raise the server's limit, or put a pooler before it" if grade == "warn" else ""
            yield Finding(grade, f"{used} of the database's {most} connections are in use{hint}")

    def _visibility(self) -> Iterator[Finding]:
        app, horizon = self._confect.app, self._confect.settings.horizon
        with app.connection_for_write() as connection:
            connection.ensure_connection(max_retries=1, timeout=max(1, round(self._timeout)))
            if "redis" not in (connection.transport.driver_type or ""):
                yield Finding("ok", "broker")
                return
        options = app.conf.broker_transport_options or {}
        timeout = float(options.get("visibility_timeout") or _DEFAULT_VISIBILITY)
        if horizon.total_seconds() * 4 > timeout:
            yield Finding(
                "warn", f"broker; its visibility timeout of {timeout:g} s is near confect_horizon, {horizon}: raise it"
            )
        else:
            yield Finding(
                "ok", f"broker; its visibility timeout of {timeout:g} s is well beyond the horizon of {horizon}"
            )

    def _alive(self) -> Iterator[Finding]:
        inspect = self._confect.app.control.inspect(timeout=self._timeout)
        answers: Any = inspect._request("confect_status")
        running = {node: status for node, status in (answers or {}).items() if "pid" in status}
        dispatching = [node for node, status in running.items() if status.get("dispatches")]
        for node, status in running.items():
            if status.get("last_error"):
                yield Finding("warn", f"{safe(node)}: {safe(status['last_error'])}")
        if not running:
            yield Finding("warn", "no worker answered: is one running, on this broker?")
        elif not dispatching and self._confect.settings.dispatcher == "worker":
            yield Finding("fail", f"none of {len(running)} workers dispatches: restart them with this configuration")
        else:
            yield Finding("ok", f"{len(running)} workers, {len(dispatching)} of them dispatching")


def _guarded(look: Look) -> Iterator[Finding]:
    try:
        yield from look()
    except ConfectError as error:
        yield Finding("fail", str(error))
    except Exception as error:
        first = (str(error).strip().splitlines() or [""])[0]
        yield Finding("fail", f"{look.__name__.strip('_')}: {type(error).__name__}: {safe(first)}")


@command("check")
@click.option(
    "--overdue", default=60.0, show_default=True, help="Fail when rows are overdue by more than these seconds."
)
@click.option("--timeout", default=2.0, show_default=True, help="Seconds to wait for the broker and for workers.")
@click.option("--workers/--no-workers", default=False, help="Ask the workers too.", show_default=True)
@click.option("--strict", is_flag=True, help="Warnings are faults.")
@click.option("--quiet", is_flag=True, help="Print faults only.")
@click.option("--json", "json_", is_flag=True)
def check(
    confect: Confect, overdue: float, timeout: float, workers: bool, strict: bool, quiet: bool, json_: bool
) -> None:
    """Check settings, functions, database, schema, clock, dispatching and broker; exit code 1 tells of a fault.

    As a probe: `confect check --quiet`. With --workers it asks the workers as well, which takes --timeout seconds.
    """
    findings = list(Doctor(confect, overdue, timeout, workers=workers).findings())
    if json_:
        as_json([asdict(finding) for finding in findings])
    for finding in findings:
        if not json_ and not (quiet and finding.grade == "ok"):
            click.echo(f"{_MARKS[finding.grade]}  {finding.what}", err=finding.grade == "fail")
    bad = [finding for finding in findings if finding.grade == "fail" or (strict and finding.grade == "warn")]
    if bad:
        raise click.exceptions.Exit(1)
    if not quiet and not json_:
        click.echo("All is well.")
