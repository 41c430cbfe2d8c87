"""The database's time: what is due is decided by one clock, however many hosts look at it."""

from __future__ import annotations

import logging
import time
from typing import Final

from sqlalchemy.exc import DBAPIError

from confect_celery.store.database import Database
from confect_celery.timing import DateTime, SystemClock

__all__ = ["DatabaseClock"]

logger = logging.getLogger(__name__)

_MEASURE_EVERY_SECONDS: Final = 30.0
_WORTH_TELLING_SECONDS: Final = 1.0


class DatabaseClock:
    """This machine's clock, corrected by how far the database's is ahead. Each process measures that for itself, and
    again every half minute; while the database cannot be asked, the last measurement stands."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._system = SystemClock()
        self._measure_at = float("-inf") if database.dialect.time is not None else float("inf")

    def now(self) -> DateTime:
        """The database's time, to about half a round trip."""
        if time.monotonic() >= self._measure_at:
            self._measure()
        return self._system.now()

    def _measure(self) -> None:
        self._measure_at = time.monotonic() + _MEASURE_EVERY_SECONDS
        try:
            with self._database.autocommit() as connection:
                offset = self._database.dialect.clock_offset(connection)
        except DBAPIError as error:
            logger.warning("Could not ask the database for its time: %s", error)
            return
        if abs((offset - self._system.offset).total_seconds()) > _WORTH_TELLING_SECONDS:
            logger.warning("This host's clock is off by %s from the database's; the database's is used.", offset)
        self._system.adjust(offset)
