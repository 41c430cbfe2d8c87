"""`celery -A shop confect …`: a plugin of Celery's command line."""

from __future__ import annotations

import signal
import sys
import threading
from typing import Any

import click
from celery.bin.base import CeleryCommand, handle_preload_options

from confect_celery.app import Confect
from confect_celery.errors import ConfectError
from confect_celery.runtime import Actors

__all__ = ["confect"]


def _find(context: click.Context) -> Confect:
    app = context.obj.app
    app.loader.import_default_modules()
    found = getattr(app, "confect", None)
    if not isinstance(found, Confect):
        raise click.ClickException(f"The app {app.main!r} has no Confect: make one with Confect(app).")
    return found


@click.group(name="confect")
def confect() -> None:
    """The durable scheduler."""


@confect.command(cls=CeleryCommand)
@click.option("--sql", is_flag=True, help="Print the SQL for an empty database instead of running it.")
@click.pass_context
@handle_preload_options
def migrate(context: click.Context, sql: bool) -> None:
    """Bring the table of scheduled functions to this version's schema."""
    store = _find(context).store
    if sql:
        click.echo(store.migration_script())
        return
    store.migrate()
    store.check_schema()
    click.echo("The table of scheduled functions is up to date.")


@confect.command(cls=CeleryCommand)
@click.pass_context
@handle_preload_options
def check(context: click.Context) -> None:
    """Check settings, functions, services, the database and its schema; exit code 1 tells of a fault."""
    found = _find(context)
    try:
        found.check()
        offset = found.store.database.reading(found.store.database.dialect.clock_offset)
    except ConfectError as error:
        raise click.ClickException(str(error)) from None
    except Exception as error:
        raise click.ClickException(f"The database cannot be used: {error}") from None
    functions = len(list(found.registry))
    click.echo(f"All is well: {functions} functions, schema up to date, this host's clock off by {abs(offset)}.")


@confect.command(cls=CeleryCommand)
@click.pass_context
@handle_preload_options
def dispatch(context: click.Context, **_: Any) -> None:
    """Run a dispatcher and the sweep alone, without a worker, until SIGTERM or Ctrl-C."""
    found = _find(context)
    try:
        found.check()
    except ConfectError as error:
        raise click.ClickException(str(error)) from None
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    actors = Actors(found, dispatch=True)
    actors.start()
    click.echo("The dispatcher is running.")
    sys.stdout.flush()
    ended.wait()
    actors.stop()
