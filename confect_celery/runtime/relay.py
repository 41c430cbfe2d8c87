"""How rows of a batch that start at most once are claimed and ended.

The end of one goes with the claim of the next, and brief ones are held together: one commit of many waits for the disk.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from confect_celery.runtime.claims import TRIES, Claims
from confect_celery.runtime.sharing import Sharing
from confect_celery.settings import Settings
from confect_celery.store import HELD_FOR, OwnTransaction, Pending, Store
from confect_celery.timing import Clock, DateTime

__all__ = ["CLAIMS", "Relay", "claims_of"]

CLAIMS: Final = "confect_claims"
"""Set on the request of a row that came in a batch: the batch's `Relay`."""

_BRIEF_SECONDS: Final = 0.02
"""What runs for longer has its end recorded at once: a cancel is likelier meanwhile, and what it costs matters less."""


@dataclass(frozen=True, slots=True)
class _End:
    row: Pending
    now: DateTime
    told: Callable[[], None]


class Relay(Claims):
    """The claims of one batch. What ends a batch ends with `flush()`.

    A row that was held begins, and one before it ends, by commits that do not wait for the disk; those of a moment ago
    are remembered until a later commit has waited, to be made again should the database fail meanwhile.

    A child notes what it holds and which end waits: should it die, its parent knows what has not begun.
    """

    def __init__(
        self,
        store: Store,
        clock: Clock,
        settings: Settings,
        next_claims: Callable[[], bool],
        sharing: Sharing | None = None,
    ) -> None:
        """`next_claims()` tells whether the next row is about to be claimed."""
        super().__init__(store, clock, settings)
        self.sharing = sharing
        self._next_claims = next_claims
        self._waiting: _End | None = None
        self._started = 0.0
        self._held: dict[str, int] = {}
        self._afloat: list[_End] = []
        self._troubles = store.database.troubles

    @property
    def waits(self) -> bool:
        """Whether an end is not recorded yet."""
        return self._waiting is not None

    def holds(self, id: str) -> bool:
        """Whether the row is held, and has not begun."""
        return id in self._held

    def hold(self, rows: Sequence[Pending]) -> list[Pending]:
        """Hold these, of one attempt; gives back those that were pending still, as they are now."""
        until: DateTime | None = None

        def hold(transaction: OwnTransaction) -> set[str]:
            nonlocal until
            if until is not None:  # its answer may have been lost
                done = self._store.rows.held(transaction.connection, rows, until)
                if done:
                    return done
            until = self._clock.now() + HELD_FOR
            return self._store.rows.hold(transaction.connection, rows, until)

        waiting = self._waiting.row if self._waiting else None
        found: set[str] = self._store.database.retrying(self._again(hold, waiting), single=True, tries=TRIES)
        held = [replace(row, attempt=row.attempt + 1) for row in rows if row.id in found]
        self._held |= {row.id: row.attempt for row in held}
        self._afloat.clear()
        return held

    def release(self) -> None:
        """Give back what is held and has not begun."""
        for id, attempt in list(self._held.items()):
            self.let_go(id, attempt)

    def let_go(self, id: str, attempt: int) -> None:
        """Give back one row that was held, at this attempt, and has not begun; nothing happens where it has ended."""
        self._held.pop(id, None)

        def give_back(transaction: OwnTransaction) -> int:
            return self._store.rows.release(transaction.connection, [id], attempt, self._clock.now())

        self._store.database.retrying(give_back, single=True, tries=TRIES)

    def start(self, row: Pending) -> bool:
        """As alone, and the end that waited."""
        ended, held = self._waiting, row.id in self._held
        started: bool = self._begin(ended, row) if held else self._start(ended, row)
        self._held.pop(row.id, None)  # only now: what could not be claimed is given back
        self._waiting, self._started = None, time.monotonic()
        return started

    def _start(self, ended: _End | None, row: Pending) -> bool:
        if ended is None:
            return super().start(row)
        rows, end = self._store.rows, ended

        def both(transaction: OwnTransaction) -> tuple[bool, bool]:
            return rows.succeed_and_start(
                transaction.connection, end.row.id, end.row.attempt + 1, end.now, row.id, row.attempt, self._lease()
            )

        single = self._store.database.dialect.changes_in_ctes
        answer: tuple[bool, bool] = self._store.database.retrying(
            self._again(both, end.row), single=single, tries=TRIES
        )
        self._afloat.clear()
        done, started = answer
        if done:
            ended.told()
        return started

    def _begin(self, ended: _End | None, row: Pending) -> bool:
        rows = self._store.rows

        def begin(transaction: OwnTransaction) -> tuple[bool, bool]:
            if ended is None:
                return False, rows.begin(transaction.connection, row.id, row.attempt, self._lease())
            of = ended.row
            return rows.succeed_and_begin(
                transaction.connection, of.id, of.attempt + 1, ended.now, row.id, row.attempt, self._lease()
            )

        answer: tuple[bool, bool] = self._store.database.retrying(
            self._again(begin, ended.row if ended else None), single=True, tries=TRIES
        )
        done, started = answer
        if ended is not None:
            self._afloat.append(ended)
            if done:
                ended.told()
        return started

    def _again(self, work: Callable[[OwnTransaction], Any], ended: Pending | None) -> Callable[[OwnTransaction], Any]:
        """The work that ends `ended`; what the database may have forgotten is made true before, where anybody in this
        process has had trouble with it."""

        def done(transaction: OwnTransaction) -> Any:
            database = self._store.database
            if database.dialect.holds and self._troubles != database.troubles:  # elsewhere nothing is forgotten
                troubles, rows, connection = database.troubles, self._store.rows, transaction.connection
                for end in self._afloat:
                    rows.begin(connection, end.row.id, end.row.attempt, self._lease())
                    rows.succeed_running(connection, end.row.id, end.row.attempt + 1, end.now)
                if ended is not None:  # its begin is no older
                    rows.begin(connection, ended.id, ended.attempt, self._lease())
                self._troubles = troubles
            return work(transaction)

        return done

    def succeed(self, row: Pending, told: Callable[[], None]) -> bool:
        """True at once where the run was brief, and the next row's claim will record its end."""
        if time.monotonic() - self._started > _BRIEF_SECONDS or not self._next_claims():
            return super().succeed(row, told)
        self._waiting = _End(row, self._clock.now(), told)
        return True

    def _succeed(self, row: Pending, now: DateTime, told: Callable[[], None]) -> bool:
        def end(transaction: OwnTransaction) -> bool:
            return self._store.rows.succeed_running(transaction.connection, row.id, row.attempt + 1, now)

        done: bool = self._store.database.retrying(self._again(end, row), single=True, tries=TRIES)
        self._afloat.clear()
        if done:
            told()
        return done

    def flush(self, but: str | None = None) -> None:
        """Record the end that waits, unless it is that of the row `but`."""
        ended = self._waiting
        if ended is not None and ended.row.id != but:
            self._waiting = None
            self._succeed(ended.row, ended.now, ended.told)


def claims_of(request: Any) -> Relay | None:
    """The relay of the batch that a running task came in. Headers of messages become attributes too: only an object of
    ours counts."""
    found = getattr(request, CLAIMS, None)
    return found if isinstance(found, Relay) else None
