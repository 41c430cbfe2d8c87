"""`confect crons`."""

from __future__ import annotations

from dataclasses import asdict

import click

from confect_celery.app import Confect
from confect_celery.cli.group import command
from confect_celery.cli.render import ago, as_json, table
from confect_celery.timing import DateTime

__all__ = ["crons"]


@command("crons")
@click.option("--json", "json_", is_flag=True)
def crons(confect: Confect, json_: bool) -> None:
    """The crons of the code: when they fire, their last run, and what was missed or skipped."""
    states, now = confect.cron_states(), confect.clock.now()
    if json_:
        as_json([asdict(state) for state in states])
        return

    def time(when: DateTime | None, otherwise: str) -> str:
        return otherwise if when is None else f"{when} ({ago(when, now)})"

    table(
        ("NAME", "SCHEDULE", "FUNCTION", "NEXT", "LAST", "RUN", "MISSED", "SKIPPED"),
        [
            (
                *(state.name, state.spec, state.function),
                time(state.next_at, "another schedule is in force" if state.stale else "not seen yet"),
                time(state.last_at, "never"),
                f"{state.last_id} {state.last_state or 'pruned'}" if state.last_id else "",
                *(state.missed, state.skipped),
            )
            for state in states
        ],
    )
