"""What users would pick instead, each behind the same few calls."""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any, Final

from bench.run import Run

__all__ = ["PEERS", "open_peer"]

PEERS: Final = {
    "procrastinate": "procrastinate",
    "apscheduler3": "apscheduler",
    "dbos": "dbos",
    "redbeat": "redbeat",
}
"""Our module's name: the package it needs."""


def open_peer(name: str, run: Run) -> Any | None:
    """The peer on its own share of the servers; None, said in the report, when it is missing or does not start."""
    package = PEERS[name]
    if importlib.util.find_spec(package) is None:
        run.report.skip(name, f"the package {package} is not installed; `make bench` installs the group `bench`")
        return None
    try:
        return importlib.import_module(f"bench.peers.{name}").open_peer(run)
    except Exception as error:  # a peer that cannot start is reported, and the others still run
        run.report.skip(name, f"it does not start here: {type(error).__name__}: {str(error)[:200]}")
        return None
