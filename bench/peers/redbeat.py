"""celery-redbeat one-offs on Redis: one entry that fires once."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Sequence
from typing import Any

from celery import Celery
from redbeat import RedBeatSchedulerEntry
from redbeat.schedules import rrule

from bench.run import Run


class RedBeat:
    """Entries are saved; no beat runs."""

    def __init__(self, url: str) -> None:
        self._app = Celery("redbeat", broker=url, set_as_current=False)
        self._app.conf.update(redbeat_redis_url=url, redbeat_lock_key=None, timezone="UTC")

    def one(self, n: int, due: dt.datetime) -> Any:
        once = rrule("SECONDLY", dtstart=due, count=1, app=self._app)
        entry = RedBeatSchedulerEntry(str(uuid.uuid4()), "bench.plain", once, args=[n], app=self._app)
        entry.save()
        return entry

    def cancel(self, entries: Sequence[Any]) -> None:
        for entry in entries:
            entry.delete()

    def close(self) -> None:
        self._app.close()


def open_peer(run: Run) -> RedBeat:
    return RedBeat(run.servers.broker("redis"))
