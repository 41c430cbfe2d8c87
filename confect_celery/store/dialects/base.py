"""The interface of a dialect."""

from __future__ import annotations

from abc import ABC, abstractmethod

import sqlalchemy as sa

from confect_celery.timing import Duration

__all__ = ["Dialect"]


class Dialect(ABC):
    """How one kind of database connects, begins, locks, updates with a result, and reports trouble."""

    creates_itself: bool = False
    """Whether the table is created on first use, with no migration run by an operator."""
    minds_forks: bool = False
    """Whether an open connection harms a forked child that never touches it."""

    def __init__(self, url: sa.URL) -> None:
        self.url = url

    @abstractmethod
    def create_engine(self) -> sa.Engine:
        """A new engine, its connections set up for our use."""

    @abstractmethod
    def begin_write(self, connection: sa.Connection) -> sa.RootTransaction:
        """Begin a transaction that will write."""

    def autocommit(self, connection: sa.Connection) -> sa.Connection:
        """Let each statement on `connection` be its own transaction."""
        return connection.execution_options(isolation_level="AUTOCOMMIT")

    @abstractmethod
    def try_lock(self, connection: sa.Connection, id: str) -> bool:
        """Take the advisory lock of a row for the rest of the transaction; False when somebody else has it."""

    @abstractmethod
    def clock_offset(self, connection: sa.Connection) -> Duration:
        """How far the database's clock is ahead of this process's."""

    @abstractmethod
    def is_transient(self, error: BaseException) -> bool:
        """Whether the same work may well succeed when it is simply done again."""
