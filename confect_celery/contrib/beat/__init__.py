"""The dispatcher inside beat, for shops whose workers shall not dispatch: `confect_dispatcher = "beat"`."""

from __future__ import annotations

import logging
from typing import Any

from celery.beat import PersistentScheduler
from celery.exceptions import ImproperlyConfigured

from confect_celery.app import Confect
from confect_celery.runtime import Actors

__all__ = ["ConfectBeat", "ConfectScheduler"]

logger = logging.getLogger(__name__)


class ConfectBeat:
    """Mixed into any scheduler class of beat's, before it: dispatches and fires crons on threads while beat ticks.

    >>> from celery.beat import Scheduler
    >>> class Mine(ConfectBeat, Scheduler): ...
    """

    app: Any
    _confect_actors: Actors | None = None

    def tick(self, *args: Any, **kwargs: Any) -> Any:
        """As the scheduler's own; the first one starts the threads, after any fork."""
        if self._confect_actors is None:
            self._confect_actors = self._confect_start()
        return super().tick(*args, **kwargs)  # type: ignore[misc]

    def close(self) -> None:
        """Give back what is claimed and not yet published, then close as the scheduler does."""
        actors, self._confect_actors = self._confect_actors, None
        if actors is not None:
            actors.stop()
        super().close()  # type: ignore[misc]

    def _confect_start(self) -> Actors:
        confect = getattr(self.app, "confect", None)
        if not isinstance(confect, Confect):
            raise ImproperlyConfigured(f"The app {self.app.main!r} has no Confect: make one with Confect(app).")
        with confect.store.database.thread():
            confect.check()
        dispatch = confect.settings.dispatcher == "beat"
        if not dispatch:
            logger.warning("Beat does not dispatch: confect_dispatcher is %r.", confect.settings.dispatcher)
        actors = Actors(confect, dispatch=dispatch)
        actors.start()
        return actors


class ConfectScheduler(ConfectBeat, PersistentScheduler):
    """`celery beat -S confect`."""
