"""What is shown: a line for each thing that happens, a live list of what is waiting, and the tables."""

from __future__ import annotations

import sys
import time
from collections.abc import Container, Iterable, Mapping
from types import TracebackType
from typing import Any, Final

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from confect_celery import DateTime, Duration, ScheduledFunction, StateKind

__all__ = ["View", "lag_of"]

_STYLES: Final[Mapping[StateKind, tuple[str, str]]] = {
    StateKind.PENDING: ("…", "cyan"),
    StateKind.IN_PROGRESS: ("▸", "blue"),
    StateKind.SUCCESS: ("✓", "green"),
    StateKind.FAILED: ("✗", "red"),
    StateKind.CANCELED: ("–", "yellow"),
}
_FAR: Final = Duration.hours(1)
_PLAIN_WIDTH: Final = 150
"""Where no terminal tells a width."""


class View:
    """Prints on `console`. In a terminal, the functions that wait stand below the lines, with the time left."""

    def __init__(self) -> None:
        self.console = Console(highlight=False, width=None if sys.stdout.isatty() else _PLAIN_WIDTH)
        self.names: dict[str, str] = {}
        """What ids are called: a user's id by the user's name."""
        self._began = time.monotonic()
        self._seen: dict[str, ScheduledFunction] = {}
        self._live = Live(console=self.console, auto_refresh=False, transient=True)

    def __enter__(self) -> View:
        if self.console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    # -- lines

    def say(self, text: str, style: str = "bold") -> None:
        """One line, with the seconds since the start."""
        at = f"{time.monotonic() - self._began:6.2f} s"
        self.console.print(f"[dim]{at}[/]  [{style}]{escape(text)}[/]", soft_wrap=True)

    def watch(self, rows: Iterable[ScheduledFunction]) -> None:
        """Tell what has changed in the table since the last call."""
        waiting = []
        for row in rows:
            before = self._seen.get(row.id)
            self._seen[row.id] = row
            if row.state.kind is StateKind.PENDING:
                waiting.append(row)
            if before is None or (before.state, before.scheduled_time) != (row.state, row.scheduled_time):
                self._tell(row, moved=before is not None and before.state.kind is row.state.kind)
        if self._live.is_started:
            self._live.update(self._waiting(waiting), refresh=True)

    def _tell(self, row: ScheduledFunction, *, moved: bool) -> None:
        kind, error = row.state.kind, row.state.error
        if kind is StateKind.IN_PROGRESS:
            return  # for milliseconds
        sign, style = _STYLES[kind]
        words = [f"    {sign} {kind:8} {_short(row.name)}", self.about(row)]
        if kind is StateKind.PENDING:
            words.append(("moved, now " if moved else "") + "due " + _left(row.scheduled_time))
        elif lag := lag_of(row):
            words.append(f"{_spelt(lag)} after its time")
        if error is not None:
            words.append(f"{error.tag}: {self._named(error.message)}")
        self.say("  ".join(filter(None, words)), style)

    def sum_up(self, rows: Iterable[ScheduledFunction], waited: Container[str]) -> None:
        """How late the jobs were, those that waited for a worker apart."""
        lags: dict[bool, list[Duration]] = {False: [], True: []}
        for row in rows:
            if (lag := lag_of(row)) is not None:
                lags[row.id in waited].append(lag)
        for late, of in lags.items():
            if of:
                of.sort()
                median = f"median {_spelt(of[len(of) // 2])}, longest {_spelt(of[-1])}"
                self.say(
                    f"Lag of the {len(of)} jobs that {'waited for the worker' if late else 'did not wait'}: {median}."
                )

    # -- tables

    def table(self, title: str, rows: Iterable[ScheduledFunction], waited: Container[str] | None = None) -> None:
        """Print `_scheduled_functions`; with each job's lag where `waited` tells which waited for a worker."""
        table = Table(title=title, title_justify="left", title_style="bold", caption_justify="left", box=SIMPLE_HEAD)
        for column in ("id", "function", "about", "scheduled (UTC)", "state"):
            table.add_column(column, no_wrap=column not in ("function", "about", "state"), overflow="fold")
        if waited is not None:
            table.add_column("lag*  ", justify="right", no_wrap=True)
            table.caption = (
                "* completed_time − scheduled_time; each of these functions runs for a few milliseconds.\n"
                "† due while the worker was dead"
            )
        for row in rows:
            error = f": {row.state.error.tag}" if row.state.error else ""
            state = Text(row.state.kind + error, _STYLES[row.state.kind][1])
            cells: list[str | Text] = ["…" + row.id[-6:], _short(row.name), self.about(row)]
            cells += [_time(row.scheduled_time), state]
            if waited is not None:
                lag = lag_of(row)
                cells.append("" if lag is None else _spelt(lag) + (" †" if row.id in waited else "  "))
            table.add_row(*cells)
        self.console.print()
        self.console.print(table)
        self.console.print()

    def _waiting(self, rows: list[ScheduledFunction]) -> Table:
        table = Table("waiting", "about", "due", title_justify="left", style="dim", header_style="dim")
        for row in sorted(rows, key=lambda row: row.scheduled_time)[:8]:
            table.add_row(_short(row.name), self.about(row), _left(row.scheduled_time), style="cyan")
        return table

    def about(self, row: ScheduledFunction) -> str:
        """The row's arguments, short, with names in the place of ids."""
        return ", ".join(self._value(key, value) for key, value in row.args.items())

    def _value(self, key: str, value: Any) -> str:
        if isinstance(value, dict):
            return f"{key} {{{', '.join(self._value(*item) for item in value.items())}}}"
        if key in ("due_at", "first"):
            at = DateTime.parse(value)
            return f"{at.to_datetime():%a %Y-%m-%d %H:%M} {at.zone}"
        if key == "cents":
            return f"{value / 100:.2f}"
        return self.names.get(value, f"{key} {value}") if isinstance(value, str) else f"{key} {value}"

    def _named(self, text: str) -> str:
        for id, name in self.names.items():
            text = text.replace(id, f"“{name}”")
        return text


def _short(name: str) -> str:
    return name.removeprefix("internal/")


def _left(due: DateTime) -> str:
    left = due - DateTime.now()
    if left >= _FAR:
        return f"on {due.to_datetime():%Y-%m-%d %H:%M} UTC"
    return f"in {left.total_seconds():.1f} s" if left > Duration.zero else "now"


def _time(due: DateTime) -> str:
    at = due.to_datetime()
    far = abs(due - DateTime.now()) >= _FAR
    return f"{at:%Y-%m-%d %H:%M}" if far else f"{at:%H:%M:%S}.{at.microsecond // 1000:03}"


def lag_of(row: ScheduledFunction) -> Duration | None:
    """How long after its time the function was done; None when it did not run."""
    if row.completed_time is None or row.state.kind is StateKind.CANCELED:
        return None
    return row.completed_time - row.scheduled_time


def _spelt(lag: Duration) -> str:
    return f"{lag.to_millis():.0f} ms" if lag < Duration.seconds(1) else f"{lag.total_seconds():.2f} s"
