"""What the runtime's pieces are made of; the app provides it."""

from __future__ import annotations

from typing import Protocol

from celery import Celery

from confect_celery.runtime.announce import Announcer
from confect_celery.runtime.brevity import Brevity
from confect_celery.settings import Settings
from confect_celery.store import Store
from confect_celery.timing import Clock

__all__ = ["Parts"]


class Parts(Protocol):
    """The parts of an app, each made when first asked for."""

    app: Celery

    @property
    def settings(self) -> Settings:
        """The settings, checked."""
        ...

    @property
    def store(self) -> Store:
        """The table."""
        ...

    @property
    def clock(self) -> Clock:
        """The time."""
        ...

    @property
    def announcer(self) -> Announcer:
        """Who is told of what becomes of rows."""
        ...

    @property
    def brevity(self) -> Brevity:
        """Which functions and tasks are brief."""
        ...

    def check(self) -> None:
        """Raise where the application is put together wrongly."""
