"""One transaction for several mutations, each within a savepoint of its own: one commit, one wait for the disk.

Their rows are locked together, so that what is pending at the beginning is so when its turn comes. A savepoint is begun
with the first statement of a part, for many a mutation has none.

Each part can be undone without the others, and none waits for long on behalf of another: on PostgreSQL what blocks for
a moment is broken off, to be done in a transaction of its own.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Final

import sqlalchemy as sa
from sqlalchemy.exc import InvalidRequestError, OperationalError, SQLAlchemyError

from confect_celery.store.database import Database
from confect_celery.store.row import Pending
from confect_celery.store.transactions import OwnTransaction
from confect_celery.timing import DateTime

if TYPE_CHECKING:
    from confect_celery.store.statements import Statements

__all__ = ["Part", "SharedTransaction"]

logger = logging.getLogger(__name__)

_READS: Final = re.compile(r"\s*(select|with)\b", re.IGNORECASE)
_INSERTS: Final = re.compile(r"\s*insert\b", re.IGNORECASE)


class Part(OwnTransaction):
    """What one mutation does in it. Its callbacks are run by who runs the mutation, once it `is_committed`."""

    def __init__(self, connection: sa.Connection, row: Pending, savepoint: str, before: int) -> None:
        super().__init__(connection)
        self.row = row
        self.savepoint_name = savepoint
        self.has_savepoint = False
        self.before = before
        """How many parts stood before it, whose work it could see."""
        self.is_committed = False
        """Whether what it did is there for good; of one that raised, whether all is that it could have raised for."""


class SharedTransaction:
    """Begun with the first part. A database error of its own rolls all of it back, and it `is_over`."""

    def __init__(self, database: Database, rows: Statements, *, relaxed: bool) -> None:
        """`relaxed`: its commit waits for no disk, on a database that can do so."""
        self._database = database
        self._rows = rows
        self._relaxed = relaxed
        self.entered = 0
        """How many parts were begun, whatever became of them."""
        self._troubled = False
        self._running: Part | None = None
        self._stack = ExitStack()
        self._connection: sa.Connection | None = None
        self._locked: set[str] = set()
        """Rows that were locked together, and whose turn has not come."""
        self._untouched = True
        """Whether all that were begun were locked so, and nothing that was executed since can have changed one."""
        self.parts: list[Part] = []
        """Those that were begun, and not undone."""
        self._raised: list[Part] = []
        self.is_over = False

    def enter(self, row: Pending, following: Sequence[Pending] = ()) -> Part | None:
        """Begin the part of this row, pending and locked; None where it is not to be run, or not here.

        Rows that share a transaction have one `attempt`. With the first, those that are `following` are locked too.
        """
        with self._rolling_back():
            connection = self._connection or self._begin([row, *following])
            self.entered += 1
            if any(part.row.id == row.id for part in self.parts):  # a batch that names it twice
                return None
            part = Part(connection, row, f"confect_{self.entered}", len(self.parts))
            if row.id in self._locked or self._lock(part):
                self._locked.discard(row.id)
                self.parts.append(part)
                self._running = part
                return part
        return None

    def _lock(self, part: Part) -> bool:
        part.has_savepoint, self._untouched = True, False
        return self._rows.lock(
            part.connection, part.row.id, part.row.attempt, relaxed=self._relaxed, savepoint=part.savepoint_name
        )

    def stands(self, part: Part, error: Exception | None) -> bool:
        """After the part's mutation has run, and raised `error` or not: whether that is its own doing.

        Where a statement of it met a timeout, a deadlock or a lost connection, even if it swallowed that, it is not.
        Nor where it looked at scheduled functions after others had run here, for their rows do not say so yet. Such a
        part is undone, and so is one that raised.
        """
        self._running = None
        # What raises it without a word to `failed` is the driver itself, in a COPY.
        troubled, self._troubled = self._troubled or isinstance(error, OperationalError), False
        with self._rolling_back():
            if not self._database.dialect.is_open(part.connection):
                raise OperationalError("COMMIT", None, RuntimeError("a statement has ended the transaction"))
            if troubled or error is not None:
                self._undo(part)
            if not troubled and error is not None:
                self._raised.append(part)
        return not (troubled or self.is_over)

    def commit(self, now: DateTime) -> None:
        """pending → success for each part, and commit.

        A part whose row was canceled or moved meanwhile is undone, and so are those after it.
        """
        with self._rolling_back():
            if self._connection is not None:
                self._succeed(self._connection, now)
            self._stack.close()
            for part in self.parts:
                part.is_committed = True
            for part in self._raised:  # undone parts are the last ones: what stood before it is the same, or less
                part.is_committed = part.before <= len(self.parts)
        self.is_over = True

    def _succeed(self, connection: sa.Connection, now: DateTime) -> None:
        while self.parts:
            rows = [part.row for part in self.parts]
            ended = self._rows.succeed_together(connection, rows, now, may_commit=self._untouched)
            lost = next((part for part in self.parts if part.row.id not in ended), None)
            if lost is None:
                return
            if self._untouched:
                raise InvalidRequestError("A row was changed by a statement that nobody has heard of.")
            self._undo(lost)

    def _begin(self, rows: Sequence[Pending]) -> sa.Connection:
        connection = self._stack.enter_context(self._database.transaction()).connection
        self._stack.enter_context(self._database.listening_to(connection, self))
        self._locked = self._rows.lock_together(connection, rows, relaxed=self._relaxed)
        self._connection = connection
        return connection

    def failed(self, error: BaseException) -> None:
        """A statement on its connection raised this."""
        self._troubled = self._troubled or isinstance(error, OperationalError)

    def executes(self, statement: str) -> str | None:
        """A statement is about to be executed on its connection: if it is the first of a part, in its savepoint."""
        part = self._running
        if part is None:
            return None
        first, part.has_savepoint = not part.has_savepoint, True
        if self._rows.table.name in statement:
            if _READS.match(statement) is not None:
                self._troubled = self._troubled or part.before > 0
            elif _INSERTS.match(statement) is None:
                # It may be one of these that it changes: they are looked at again.
                self._locked.clear()
                self._untouched = False
        return part.savepoint_name if first else None

    def _undo(self, part: Part) -> None:
        at = self.parts.index(part)
        of = next((each for each in self.parts[at:] if each.has_savepoint), None)
        if of is not None:  # else neither it nor those after it have executed anything
            part.connection.exec_driver_sql(f"ROLLBACK TO SAVEPOINT {of.savepoint_name}")
        del self.parts[at:]

    @contextmanager
    def _rolling_back(self) -> Iterator[None]:
        try:
            yield
        except SQLAlchemyError as error:  # of a connection that is gone it says that the transaction is invalid
            logger.debug("A shared transaction is given up, each of its mutations runs by itself: %s", error)
            self.abandon(error)
        except BaseException as error:
            self.abandon(error)
            raise

    def abandon(self, error: BaseException) -> None:
        """Roll all of it back because of `error`; where the connection is gone, so is all that was done on it."""
        self.parts, self.is_over = [], True
        with suppress(SQLAlchemyError):
            self._stack.__exit__(type(error), error, error.__traceback__)
