"""`confect stats`."""

from __future__ import annotations

import click

from confect_celery.app import Confect
from confect_celery.cli.group import command
from confect_celery.cli.render import ago, as_json, safe, table
from confect_celery.store import StateKind, Statistics
from confect_celery.timing import Duration

__all__ = ["stats"]

_BARS = " ▁▂▃▄▅▆▇█"


def plot(counts: list[int]) -> str:
    """A bar a count."""
    most = max(counts) or 1
    return "".join(_BARS[-(-count * (len(_BARS) - 1) // most)] for count in counts)


@command("stats")
@click.option("--minutes", default=60, show_default=True, type=click.IntRange(1, 1440), help="How far ahead.")
@click.option("--hours", default=24, show_default=True, type=click.IntRange(1, 24 * 365), help="How far back.")
@click.option("--json", "json_", is_flag=True)
def stats(confect: Confect, minutes: int, hours: int, json_: bool) -> None:
    """What is pending, what is coming, how late things were, and what failed.

    At most 100,000 live rows and as many of the newest ones are looked at, whatever the table holds. The lag is from
    the due time to the end of the run: a row does not tell when it began.
    """
    store, now = confect.store, confect.clock.now()
    figures, since = Statistics(store.table), confect.clock.now() - Duration.hours(hours)
    longest = confect.settings.redelivery * 64 + confect.settings.horizon
    with store.database.snapshot() as connection:
        live, recent = figures.live(connection), figures.recent(connection, since)
        due = figures.due(connection, now, minutes)
        forecast = figures.forecast(connection, now, Duration.hours(24))
        overdue, oldest = figures.waiting(connection, now, longest)
        ran, lags = figures.lags(connection, since)
        failures = figures.failures(connection, since)
    if json_:
        as_json(
            {
                "live": {kind.value: live.get(kind, 0) for kind in (StateKind.PENDING, StateKind.IN_PROGRESS)},
                "recent": {kind.value: count for kind, count in recent.items()},
                "due_per_minute": due,
                "next_24_hours": [{"name": name, "count": count, "first": first} for name, count, first in forecast],
                "overdue": {"count": overdue, "oldest": oldest},
                "lag_seconds": {"ran": ran, **{f"p{percent}": value for percent, value in lags.items()}},
                "failures": [{"tag": tag, "name": name, "count": count} for tag, name, count in failures],
            }
        )
        return
    click.echo(f"pending {live.get(StateKind.PENDING, 0)}, running {live.get(StateKind.IN_PROGRESS, 0)}")
    late = f", the oldest since {ago(oldest, now)}" if oldest is not None else ""
    click.echo(f"overdue {overdue}{late}")
    click.echo(f"created in the last {hours} h: " + (", ".join(f"{n} {k.value}" for k, n in recent.items()) or "none"))
    if lags:
        told = ", ".join(f"p{percent} {value * 1000:.0f} ms" for percent, value in lags.items())
        click.echo(f"from due time to end, {ran} runs: {told}".replace("p100", "longest"))
    click.echo(f"\ndue in each of the next {minutes} minutes, {max(due)} at most:\n[{plot(due)}]")
    if forecast:
        click.echo("\nin the next 24 hours:")
        table(("COUNT", "FIRST", "NAME"), [(count, ago(first, now), name) for name, count, first in forecast])
    if failures:
        click.echo(f"\nfailed in the last {hours} h:")
        table(("COUNT", "TAG", "NAME"), [(count, safe(tag), name) for tag, name, count in failures])
