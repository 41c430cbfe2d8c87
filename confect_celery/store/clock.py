"""The database's time: what is due is decided by one clock, however many hosts look at it."""

from __future__ import annotations

import datetime as dt
import logging
import time
from dataclasses import dataclass
from typing import Final

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from confect_celery.store.database import Database
from confect_celery.timing import DateTime, Duration

__all__ = ["DatabaseClock"]

logger = logging.getLogger(__name__)

_MEASURE_EVERY_SECONDS: Final = 30.0
_AFTER_A_FAILURE_SECONDS: Final = 5.0
_MOST_ASKED: Final = 5
_PRECISE_SECONDS: Final = 0.0015
"""An answer that took no longer than this is not asked for again."""
_STEP_SECONDS: Final = 0.5
_WORTH_TELLING: Final = Duration.seconds(1)


@dataclass(frozen=True, slots=True)
class _Answer:
    """`micros` after 1970 in the database, or at most `unsure` seconds later, as the monotonic clock said `at`."""

    micros: int
    at: float
    unsure: float

    def now(self) -> DateTime:
        return DateTime.from_epoch_micros(self.micros + int((time.monotonic() - self.at) * 1_000_000))


class DatabaseClock:
    """The database's clock, gone on with by this machine's monotonic one, which nobody sets. Each process asks for
    itself, every half minute and when the machine's clock was set or stood still; while the database cannot be asked,
    its last answer stands, and before the first one the machine's clock."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._answer: _Answer | None = None
        self._ask_at = float("-inf") if database.dialect.time is not None else float("inf")
        self._wall_ahead = _wall_ahead()
        self._told = Duration.zero

    def now(self) -> DateTime:
        """The database's time: never ahead of it, for nothing may start early; behind by a round trip at most."""
        then, answer = time.monotonic(), self._answer
        stepped = answer is not None and abs(time.time() - then - self._wall_ahead) > _STEP_SECONDS
        if then >= self._ask_at or stepped:
            self._measure()
            answer = self._answer
        return DateTime.now() if answer is None else answer.now()

    def _measure(self) -> None:
        self._ask_at = time.monotonic() + _MEASURE_EVERY_SECONDS  # first: other threads need not ask as well
        self._wall_ahead = _wall_ahead()
        try:
            with self._database.autocommit() as connection:
                answer = self._ask(connection)
        except DBAPIError as error:
            self._ask_at = time.monotonic() + _AFTER_A_FAILURE_SECONDS
            logger.warning("Could not ask the database for its time: %s", error)
            return
        known = self._answer
        if known is None or answer.unsure <= max(_PRECISE_SECONDS, known.unsure) or not _agree(known, answer):
            self._answer = answer
        offset = answer.now() - DateTime.now()
        if abs((offset - self._told).total_seconds()) > _WORTH_TELLING.total_seconds():
            self._told = offset
            logger.warning("This host's clock is off by %s from the database's; the database's is used.", offset)

    def _ask(self, connection: sa.Connection) -> _Answer:
        """The surest of some answers: one may come over a connection that stalled, or to a process that did not run."""
        expression, best = self._database.dialect.time, None
        assert expression is not None
        for _ in range(_MOST_ASKED):
            before = time.monotonic()
            theirs: dt.datetime = connection.execute(sa.select(expression)).scalar_one()  # type: ignore[assignment]
            after = time.monotonic()
            aware = theirs if theirs.tzinfo else theirs.replace(tzinfo=dt.UTC)
            answer = _Answer(DateTime.of(aware).epoch_micros, after, after - before)
            if best is None or answer.unsure < best.unsure:
                best = answer
            if best.unsure <= _PRECISE_SECONDS:
                break
        assert best is not None
        return best


def _agree(known: _Answer, answer: _Answer) -> bool:
    """Whether an unsure answer tells nothing new."""
    expected = known.micros + (answer.at - known.at) * 1_000_000
    return -answer.unsure * 1_000_000 <= answer.micros - expected <= known.unsure * 1_000_000


def _wall_ahead() -> float:
    return time.time() - time.monotonic()
