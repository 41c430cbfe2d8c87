"""`confect dispatch` and `confect migrate`."""

from __future__ import annotations

import signal
import sys
import threading

import click

from confect_celery.app import Confect
from confect_celery.cli.group import command
from confect_celery.runtime import Actors

__all__ = ["dispatch", "migrate"]


@command("migrate")
@click.option("--sql", is_flag=True, help="Print the SQL instead of running it, for an empty database or --from one.")
@click.option("--from", "since", metavar="REVISION", help="With --sql: the revision that the database is at.")
def migrate(confect: Confect, sql: bool, since: str | None) -> None:
    """Bring the tables to this version's schema."""
    if since is not None and not sql:
        raise click.UsageError("--from goes with --sql: without it the database is asked.")
    if sql:
        click.echo(confect.store.migration_script(since))
        return
    confect.store.migrate()
    confect.store.check_schema()
    click.echo("The table of scheduled functions is up to date.")


@command("dispatch")
def dispatch(confect: Confect) -> None:
    """Run a dispatcher, the crons and the sweep alone, without a worker, until SIGTERM or Ctrl-C."""
    confect.check()
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    actors = Actors(confect, dispatch=True)
    actors.start()
    click.echo("The dispatcher is running.")
    sys.stdout.flush()
    ended.wait()
    actors.stop()
