"""What is printed: plain text that no argument can make a terminal do tricks with, or JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

import click

from confect_celery.store import ScheduledFunction
from confect_celery.timing import DateTime, Duration

__all__ = ["ago", "as_dict", "as_json", "safe", "table"]

_HIDDEN = "(hidden)"


def safe(value: object, longest: int | None = None) -> str:
    """A text in one line, control characters escaped."""
    text = "".join(char if char.isprintable() else repr(char)[1:-1] for char in str(value))
    return text if longest is None or len(text) <= longest else text[: longest - 1] + "…"


def as_json(value: object) -> None:
    """Print JSON; times are ISO 8601."""
    click.echo(json.dumps(value, default=str, indent=2))


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print columns as wide as what stands in them."""
    cells = [[safe(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(head, *cells, strict=True)]
    for line in [list(head), *cells]:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def ago(when: DateTime, now: DateTime) -> str:
    """As `in 2h` or `3m ago`, to the coarsest two units."""
    seconds = abs((when - now).total_seconds())
    units = (("d", 86400.0), ("h", 3600.0), ("m", 60.0), ("s", 1.0))
    parts: list[str] = []
    for unit, length in units:
        count, seconds = divmod(seconds, length)
        if count or (unit == "s" and not parts):
            parts.append(f"{int(count)}{unit}")
    text = "".join(parts[:2])
    return f"in {text}" if when >= now else f"{text} ago"


def as_dict(row: ScheduledFunction, *, show_args: bool, zone: str | None = None) -> dict[str, Any]:
    """A row as JSON has it."""

    def time(when: DateTime | None) -> str | None:
        return None if when is None else str(when if zone is None else when.in_zone(zone))

    options = dict(row.options)
    if not show_args and "args" in options:
        options["args"] = _HIDDEN
    error = row.state.error
    return {
        "id": row.id,
        "name": row.name,
        "kind": row.kind,
        "state": row.state.kind.value,
        "args": row.args if show_args else _HIDDEN,
        "scheduled_time": time(row.scheduled_time),
        "creation_time": time(row.creation_time),
        "completed_time": time(row.completed_time),
        "next_at": time(row.next_at),
        "attempt": row.attempt,
        "deliveries": row.deliveries,
        "losses": row.losses,
        "parent_id": row.parent_id,
        "options": options,
        "error": None
        if error is None
        else {"tag": error.tag, "message": error.message, "data": error.data, "traceback": error.traceback},
    }


def lasting(duration: Duration) -> str:
    """A duration in milliseconds or seconds."""
    seconds = duration.total_seconds()
    return f"{seconds * 1000:.0f} ms" if abs(seconds) < 1 else f"{seconds:.1f} s"
