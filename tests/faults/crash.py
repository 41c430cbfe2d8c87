"""Kills the process at a named seam: imported by the shop's workers in tests only, so shipped code has no hooks.

A plan file says of a row at which seams its process dies, one after the other: `{row: [[seam, victim], …]}`, the victim
being "child" (the process that comes there), "whole" (the worker with its pool) or "nobody", who only has been there;
the row "any" is the first that comes there. A seam is a statement of the store
"before" and "after" it ran and "committed", a message's "publish" and "ack" before and after, and the function's own
first and last line. Each step happens once: a file marks it.
"""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from celery.worker.request import Request

from confect_celery.runtime import CeleryTransport, batch_run
from confect_celery.runtime.batches import BatchTransport
from confect_celery.store import OwnTransaction
from confect_celery.store.database import Database
from confect_celery.store.statements import Statements

STATEMENTS = (
    "insert", "claim_due", "load", "load_locked", "lock", "lock_together", "load_many", "start", "start_due",
    "succeed_pending", "succeed_together", "succeed_running", "fail_running", "retry", "lose", "requeue",
    "take_back", "bury",
)  # fmt: skip

SEAM_OF = {"start_due": "start"}
"""A start is a start, whether or not the row was read before."""

_directory: Path | None = None
_done = threading.local()


def hit(seam: str, id: str) -> None:
    """Die here if the plan says so."""
    if _directory is None or not (_directory / "plan.json").exists():
        return
    plan = json.loads((_directory / "plan.json").read_text())
    for row in (id, "any"):
        left = (step for step in enumerate(plan.get(row, ())) if not (_directory / f"{row}.{step[0]}").exists())
        number, (planned, victim) = next(left, (0, ("", "")))
        if planned == seam:
            os.close(os.open(_directory / f"{row}.{number}", os.O_CREAT | os.O_EXCL))
            if victim == "whole":
                os.killpg(os.getpgid(0), signal.SIGKILL)
            if victim == "child":
                os.kill(os.getpid(), signal.SIGKILL)


def arm(directory: Path) -> None:
    """Wrap the seams; `directory` holds the plan and the marks. Each comes about on a slow machine too: no batch takes
    so long that its rows go on alone."""
    global _directory
    _directory = directory
    batch_run.LONGEST_SECONDS = 60.0  # type: ignore[misc]
    for name in STATEMENTS:
        setattr(Statements, name, _statement(SEAM_OF.get(name, name), getattr(Statements, name)))
    Database.transaction = _transaction(Database.transaction)  # type: ignore[method-assign]
    Database.statement = _transaction(Database.statement)  # type: ignore[method-assign]
    CeleryTransport.publish = _around("publish", CeleryTransport.publish)  # type: ignore[method-assign]
    # Rows that are due together go out in one round trip, each in a message of its own.
    CeleryTransport.publish_each = _around("publish", CeleryTransport.publish_each)  # type: ignore[method-assign]
    BatchTransport.publish = _around("publish", BatchTransport.publish)  # type: ignore[method-assign]
    Request.acknowledge = _around("ack", Request.acknowledge)


def _ids(name: str, args: tuple[Any, ...], result: Any) -> list[str]:
    if name == "claim_due":
        return [delivery.id for delivery in result or ()]
    if name in ("bury", "insert", "load_many", "lock_together", "succeed_together"):
        return [getattr(each, "id", each) for each in args[0]]
    return [args[0]]


def _statement(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
    def wrapped(self: Statements, connection: Any, *args: Any, **kwargs: Any) -> Any:
        for id in _ids(name, args, None):
            hit(f"{name} before", id)
        result = original(self, connection, *args, **kwargs)
        if (result is not False and result is not None) or name == "insert":  # the transition happened
            for id in _ids(name, args, result):
                hit(f"{name} after", id)
                getattr(_done, "list", []).append((name, id))
        return result

    return wrapped


def _transaction(original: Callable[[Database], Any]) -> Callable[[Database], Any]:
    @contextmanager
    def wrapped(self: Database) -> Iterator[OwnTransaction]:
        outer, mine = getattr(_done, "list", []), []
        _done.list = mine
        try:
            with original(self) as transaction:
                yield transaction
        finally:
            _done.list = outer
        for name, id in mine:
            hit(f"{name} committed", id)

    return wrapped


def _around(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
    def wrapped(self: Any, *args: Any, **kwargs: Any) -> Any:
        # A message's row, or those of a batch; an acknowledgement's message is the request itself.
        about = args[0] if args else getattr(self, "entries", self)
        ids = [str(each.id) for each in (about if isinstance(about, list) else [about])]
        for id in ids:
            hit(f"{name} before", id)
        result = original(self, *args, **kwargs)
        for id in ids:
            hit(f"{name} after", id)
        return result

    return wrapped
