"""Peers in a scenario: one that cannot be had, or breaks, is reported as skipped and does not end the others."""

from __future__ import annotations

from bench import alternatives
from bench.alternatives.interface import Rates
from bench.run import Run

__all__ = ["chosen", "figures", "title"]

_POLLING = {"procrastinate": "procrastinate polling every 0.2 s"}
"""Those that do not run as they come: left alone it looks every five seconds."""


def chosen(run: Run) -> tuple[str, ...]:
    """Those that take part: in a quick run just one."""
    return ("procrastinate",) if run.quick else alternatives.PEERS


def title(name: str) -> str:
    """The peer's name where it is about how late it starts jobs."""
    return _POLLING.get(name, name)


def figures(run: Run, name: str, jobs: int, spread: float | None = None) -> Rates | None:
    """What the peer gives in a process and a database of its own, with one worker: its rates, or with `spread` how
    late it starts jobs that are due within so many seconds."""
    servers = alternatives.Servers(run.servers.database("postgresql"), run.servers.broker("redis"))
    found = alternatives.run_all(servers, jobs, [name], spread)[name]
    if isinstance(found, str):
        run.report.skip(name if spread is None else f"{name}, {jobs:,} jobs due within {spread:g} s", found)
        return None
    return found
