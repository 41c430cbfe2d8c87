"""More seams for `crash`: the statements by which a batch holds rows and has them begin; each commits by itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from confect_celery import Duration
from confect_celery.runtime import batch_run, brevity, pace
from confect_celery.store.statements import Statements
from tests.faults.crash import hit


def arm(directory: Path) -> None:
    """Wrap them, where `crash` is armed. A file "gives up" in the directory has a child fail once after it held rows,
    as if it could not reach the database any more; a file "early" has rows come so long before their time that a child
    waits for it on a loaded machine too. What is brief is so there, too."""
    brevity._BRIEF_SECONDS = 60.0  # type: ignore[misc]
    if (directory / "early").exists():
        pace._WAY_SECONDS = pace._FURTHEST_SECONDS = 4.0  # type: ignore[misc]
        batch_run.A_MOMENT = Duration.seconds(6)  # type: ignore[misc]
    wait = batch_run.wait_until

    def waits(*args: Any) -> bool:
        hit("wait before", "whichever")
        return wait(*args)

    batch_run.wait_until = waits
    hold, begin, both, release = (
        Statements.hold, Statements.begin, Statements.succeed_and_begin, Statements.release
    )  # fmt: skip

    def held(self: Statements, connection: Any, rows: Any, *args: Any) -> Any:
        found = hold(self, connection, rows, *args)
        for row in rows:
            hit("hold after", row.id)
        if found and (directory / "gives up").exists():
            (directory / "gives up").rename(directory / "gave up")
            raise RuntimeError("the child gives up")
        return found

    def began(self: Statements, connection: Any, id: str, *args: Any) -> Any:
        hit("begin before", id)
        done = begin(self, connection, id, *args)
        hit("begin after", id)
        return done

    def ended_and_began(
        self: Statements, connection: Any, ended: str, ended_attempt: int, now: Any, id: str, *args: Any
    ) -> Any:
        hit("succeed_and_begin before", id)
        done = both(self, connection, ended, ended_attempt, now, id, *args)
        hit("succeed_and_begin after", id)
        return done

    def released(self: Statements, connection: Any, ids: Any, *args: Any) -> Any:
        for id in ids:
            hit("release before", id)
        return release(self, connection, ids, *args)

    Statements.hold = held  # type: ignore[method-assign]
    Statements.begin = began  # type: ignore[method-assign]
    Statements.succeed_and_begin = ended_and_began  # type: ignore[method-assign]
    Statements.release = released  # type: ignore[method-assign]
