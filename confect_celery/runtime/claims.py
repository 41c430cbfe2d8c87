"""How a row that starts at most once is claimed and ended: alone, or, within a batch, the end of one with the claim of
the next."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from confect_celery.runtime.sharing import Sharing
from confect_celery.settings import Settings
from confect_celery.store import OwnTransaction, Pending, Store
from confect_celery.timing import Clock, DateTime

__all__ = ["CLAIMS", "Claims", "Relay", "claims_of"]

CLAIMS: Final = "confect_claims"
"""Set on the request of a row that came in a batch: the batch's `Relay`."""

_TRIES: Final = 10
"""A worker can wait for a database that restarts; what it holds would only come later otherwise."""


class Claims:
    """Each claim and each end is a commit of its own."""

    sharing: Sharing | None = None
    """A batch's: for mutations, which need no claim."""

    def __init__(self, store: Store, clock: Clock, settings: Settings) -> None:
        self._store = store
        self._clock = clock
        self._settings = settings

    def start(self, row: Pending) -> bool:
        """pending → inProgress. False when the row is not pending at its attempt any more."""

        def claim(transaction: OwnTransaction) -> bool:
            return self._store.rows.start(transaction.connection, row.id, row.attempt, self._lease())

        return self._store.database.retrying(claim, single=True, tries=_TRIES)

    def succeed(self, row: Pending, told: Callable[[], None]) -> bool:
        """inProgress → success of a row that `start` claimed, and `told()`. False when it was canceled meanwhile."""
        return self._succeed(row, self._clock.now(), told)

    def _succeed(self, row: Pending, now: DateTime, told: Callable[[], None]) -> bool:
        def end(transaction: OwnTransaction) -> bool:
            return self._store.rows.succeed_running(transaction.connection, row.id, row.attempt + 1, now)

        done = self._store.database.retrying(end, single=True, tries=_TRIES)
        if done:
            told()
        return done

    def _lease(self) -> DateTime:
        return self._clock.now() + self._settings.redelivery


_BRIEF_SECONDS: Final = 0.02
"""What runs for longer has its end recorded at once: a cancel is likelier meanwhile, and what it costs matters less."""


@dataclass(frozen=True, slots=True)
class _End:
    row: Pending
    now: DateTime
    told: Callable[[], None]


class Relay(Claims):
    """The claims of one batch: an end waits for the claim of the next row, and both are one commit.

    What ends a batch ends with `flush()`. A child notes that an end waits: should it die, its parent records that.
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

    @property
    def waits(self) -> bool:
        """Whether an end is not recorded yet."""
        return self._waiting is not None

    def start(self, row: Pending) -> bool:
        """As alone, and the end that waited."""
        ended = self._waiting
        started = super().start(row) if ended is None else self._end_and_start(ended, row)
        self._waiting, self._started = None, time.monotonic()
        return started

    def _end_and_start(self, end: _End, row: Pending) -> bool:
        rows = self._store.rows

        def both(transaction: OwnTransaction) -> tuple[bool, bool]:
            return rows.succeed_and_start(
                transaction.connection, end.row.id, end.row.attempt + 1, end.now, row.id, row.attempt, self._lease()
            )

        single = self._store.database.dialect.changes_in_ctes
        done, started = self._store.database.retrying(both, single=single, tries=_TRIES)
        if done:
            end.told()
        return started

    def succeed(self, row: Pending, told: Callable[[], None]) -> bool:
        """True at once where the run was brief, and the next row's claim will record its end."""
        if time.monotonic() - self._started > _BRIEF_SECONDS or not self._next_claims():
            return super().succeed(row, told)
        self._waiting = _End(row, self._clock.now(), told)
        return True

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
