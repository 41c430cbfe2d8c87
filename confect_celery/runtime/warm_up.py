"""What a new child would otherwise do while its first row waits: import a driver, connect, compile statements, ask the
database for its time."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

from celery import signals

from confect_celery.runtime.parts import Parts

__all__ = ["have_children_ready"]

logger = logging.getLogger(__name__)


def have_children_ready(parts: Parts) -> Callable[[], object]:
    """Have each child of this worker's pool get ready as soon as it is forked; call it before the pool starts.

    Gives back what ends that: in a process that runs one worker after another, the next one's start is not this one's.
    """
    parts.store.database.url.get_dialect().import_dbapi()  # once, for all that will be forked

    def forked(**_: Any) -> None:
        # Beside its start: a child that waits for a database for four seconds is taken for dead.
        threading.Thread(target=_get_ready, args=(parts,), name="confect-warm-up", daemon=True).start()

    signals.worker_process_init.connect(forked, weak=False)
    return lambda: signals.worker_process_init.disconnect(forked)


def _get_ready(parts: Parts) -> None:
    database, rows = parts.store.database, parts.store.rows
    try:
        with database.thread():
            database.reading(rows.warm_up, tries=1)
            parts.clock.now()
    except Exception as error:  # the first row will tell, and knows how to wait
        logger.debug("Not ready yet: %s", error)
