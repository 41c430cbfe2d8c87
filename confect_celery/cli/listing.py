"""`confect list` and `confect show`."""

from __future__ import annotations

import time
from typing import Any

import click

from confect_celery.app import Confect
from confect_celery.cli.choosing import Choice, choosing
from confect_celery.cli.group import command
from confect_celery.cli.render import ago, as_dict, as_json, safe, table
from confect_celery.store import ScheduledFunction

__all__ = ["list_", "print_rows", "show"]

_ARGS_SHOWN = 60


def print_rows(confect: Confect, rows: list[ScheduledFunction], *, show_args: bool) -> None:
    """A line a row."""
    now = confect.clock.now()

    def line(row: ScheduledFunction) -> tuple[object, ...]:
        what = row.state.kind.value + (f" {row.state.error.tag}" if row.state.error else "")
        args = dict(row.args) if isinstance(row.args, dict) else row.args
        shown = safe({"*": row.options["args"], **args} if "args" in row.options else args, _ARGS_SHOWN)
        due = row.scheduled_time
        return (row.id, what, f"{due} ({ago(due, now)})", row.name, shown if show_args else "(hidden)")

    table(("ID", "STATE", "DUE", "NAME", "ARGS"), map(line, rows))


@command("list")
@choosing()
@click.option("--limit", default=50, show_default=True, type=click.IntRange(1, 100_000))
@click.option("--order", type=click.Choice(["asc", "desc"]), default="asc", show_default=True, help="By due time.")
@click.option("--json", "json_", is_flag=True, help="One JSON array.")
@click.option("--watch", is_flag=True, help="Again every two seconds, until Ctrl-C.")
@click.option("--show-args", is_flag=True, help="Though confect_show_args is off.")
def list_(confect: Confect, choice: Choice, limit: int, order: Any, json_: bool, watch: bool, show_args: bool) -> None:
    """List scheduled functions by their due time.

    \b
    celery -A shop confect list --state pending --name 'internal/users/*' --arg user_id=7
    celery -A shop confect list --state failed --due-after 2030-01-01T00:00:00Z --json
    """
    show_args = show_args or confect.settings.show_args
    while True:
        with confect.reader() as db:
            query = choice.query(confect, db)
            rows = query.order(order, by="scheduled_time").take(limit + 1)
        more, rows = len(rows) > limit, rows[:limit]
        if watch:
            click.clear()
        if json_:
            as_json([as_dict(row, show_args=show_args) for row in rows])
        else:
            print_rows(confect, rows, show_args=show_args)
            if more:
                click.echo(f"… more than {limit}; --limit shows more.", err=True)
        if not watch:
            return
        time.sleep(2)


@command("show")
@click.argument("id")
@click.option("--json", "json_", is_flag=True)
@click.option("--zone", help="Show times in this zone, such as Europe/Paris.")
@click.option("--show-args", is_flag=True, help="Though confect_show_args is off.")
def show(confect: Confect, id: str, json_: bool, zone: str | None, show_args: bool) -> None:
    """Show everything about one scheduled function."""
    row = confect.scheduler.get(id)
    if row is None:
        raise click.ClickException(f"There is no scheduled function {safe(id)}: mistyped, rolled back, or pruned.")
    fields = as_dict(row, show_args=show_args or confect.settings.show_args, zone=zone)
    if json_:
        as_json(fields)
        return
    error = fields.pop("error")
    for name, value in fields.items():
        if value not in (None, {}):
            click.echo(f"{name:15} {safe(value)}")
    if error is not None:
        click.echo(f"{'error':15} {safe(error['tag'])}: {safe(error['message'])}")
        if error["data"] is not None:
            click.echo(f"{'':15} {safe(error['data'])}")
        for line in (error["traceback"] or "").splitlines():
            click.echo(f"    {safe(line)}")
