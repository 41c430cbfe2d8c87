"""`confect cancel | run-now | reschedule | retry`: of rows by id, or of chosen ones after a look at them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import click

from confect_celery.app import Confect
from confect_celery.cli.choosing import Choice, choosing
from confect_celery.cli.group import WHEN, command, parse_when
from confect_celery.cli.listing import print_rows
from confect_celery.cli.render import safe

__all__ = ["cancel", "reschedule", "retry", "run_now"]

_PREVIEWED = 10
_AT_ONCE = 1000


def _yes(function: Callable[..., object]) -> Callable[..., object]:
    return click.option("--yes", is_flag=True, help="Do not ask.")(function)


def _chosen(confect: Confect, ids: Sequence[str], choice: Choice, asked: bool, what: str, yes: bool) -> list[str]:
    """The ids to work on; shows what a choice means, and asks."""
    if ids and asked:
        raise click.UsageError("Give ids, or flags that choose, not both.")
    if ids:
        return list(ids)
    if not asked:
        raise click.UsageError("Give ids, or flags that choose; --name '*' means all.")
    with confect.reader() as db:
        query = choice.query(confect, db)
        rows = query.take(_PREVIEWED)
        found: list[str] = [row.id for row in query]
    if not found:
        click.echo("No row is chosen.")
        return []
    print_rows(confect, rows, show_args=confect.settings.show_args)
    if len(found) > len(rows):
        click.echo(f"… and {len(found) - len(rows)} more")
    if not yes:
        click.confirm(f"{what} {len(found)}?", abort=True)
    return found


def _each(ids: Sequence[str], act: Callable[[str], bool], done: str, why_not: Callable[[str], str]) -> None:
    """Do it to each, tell of each that it could not be done to, and exit with 1 where there is one."""
    count = 0
    for id in ids:
        if act(id):
            count += 1
        else:
            click.echo(f"{safe(id)}: {why_not(id)}", err=True)
    click.echo(f"{count} of {len(ids)} {done}.")
    if count < len(ids):
        raise click.exceptions.Exit(1)


def _state(confect: Confect, id: str) -> str:
    row = confect.scheduler.get(id)
    return "there is no such row" if row is None else f"it is {row.state.kind.value}"


@command("cancel")
@click.argument("ids", nargs=-1)
@choosing(("pending",))
@_yes
def cancel(confect: Confect, ids: tuple[str, ...], choice: Choice, asked: bool, yes: bool) -> None:
    """Cancel by id, or those that the flags choose (pending ones if no --state is given).

    \b
    celery -A shop confect cancel 01a20847-…
    celery -A shop confect cancel --name 'internal/mail/*' --arg user_id=7 --yes
    """
    found = _chosen(confect, ids, choice, asked, "Cancel", yes)
    _each(found, confect.scheduler.cancel, "canceled", lambda id: f"not canceled: {_state(confect, id)}")


@command("run-now")
@click.argument("ids", nargs=-1)
@choosing(("pending",))
@_yes
def run_now(confect: Confect, ids: tuple[str, ...], choice: Choice, asked: bool, yes: bool) -> None:
    """Have pending functions run as soon as may be."""
    soon = confect.settings.min_delay
    found = _chosen(confect, ids, choice, asked, "Run now", yes)
    act = confect.scheduler.reschedule
    _each(found, lambda id: act(id, soon), "due now", lambda id: f"not changed: {_state(confect, id)}")


@command("reschedule")
@click.argument("id")
@click.argument("when")
def reschedule(confect: Confect, id: str, when: str) -> None:
    """Move a pending function to another time: 2030-01-01T09:00:00Z, or from now: 2h30m, 90s, P1D."""
    moved = confect.scheduler.reschedule(id, parse_when(when))
    row = confect.scheduler.get(id)
    if not moved or row is None:
        raise click.ClickException(f"{safe(id)} is not moved: {_state(confect, id)}.")
    click.echo(f"{safe(id)} is due at {row.scheduled_time}.")


@command("retry")
@click.argument("ids", nargs=-1)
@choosing(("failed",))
@click.option("--at", "when", metavar="WHEN", help=f"Not at once: {WHEN}.")
@_yes
def retry(confect: Confect, ids: tuple[str, ...], choice: Choice, asked: bool, when: str | None, yes: bool) -> None:
    """Schedule failed or canceled functions anew, as new rows, by id or chosen by flags (failed ones if no --state)."""
    due = None if when is None else parse_when(when)

    def again(id: str) -> bool:
        new = confect.scheduler.retry(id, due)
        if new is not None:
            click.echo(f"{safe(id)} -> {new}")
        return new is not None

    found = _chosen(confect, ids, choice, asked, "Retry", yes)
    _each(found[:_AT_ONCE], again, "scheduled anew", lambda id: f"not scheduled: {_state(confect, id)}")
    if len(found) > _AT_ONCE:
        click.echo(f"{len(found) - _AT_ONCE} are left: run it again.", err=True)
