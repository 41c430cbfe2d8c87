"""Monitors such as Flower hear of rows in Celery's own events: `task-sent`, `task-revoked`, `task-failed`.

Events are best effort, as Celery's are: the scheduling call only puts down what happened, and a thread of its own tells
the broker, so that one which is slow or away costs the caller nothing. What it did not take waits, up to a bound; where
nobody would hear it, it is not even made.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any, Final, Protocol

from celery import Celery, signals
from celery._state import get_current_task
from celery.events import EventDispatcher
from kombu import Connection
from kombu.exceptions import OperationalError

from confect_celery.runtime.audience import Audience
from confect_celery.runtime.messages import HIDDEN, decode, shown, task_name
from confect_celery.settings import Settings
from confect_celery.store import Delivery, NewRow
from confect_celery.timing import jitter

__all__ = ["Announcer", "Events", "Silent"]

logger = logging.getLogger(__name__)


_NODE: Final = "scheduler@confect"
"""Who tells of a cancel where no worker does. Monitors take the sender of such an event for a worker, so it is one name
for all processes: they list one more, not one a process."""

_MOST_WAITING: Final = 10_000
_CROWD: Final = 1_000
"""Where so many wait they are told at once, lest there be more than may wait."""

_BATCH: Final = 100
_GATHERED_SECONDS: Final = 0.1
"""While events keep coming they are told so far apart. Who schedules one job after the other would have to share Python
with a thread that tells each by itself: it takes longer over that than the call does."""

_IDLE_SECONDS: Final = 60.0
_LAST_WORDS_SECONDS: Final = 1.0
_FIRST_BACKOFF_SECONDS: Final = 0.5
_LONGEST_BACKOFF_SECONDS: Final = 10.0

Event = tuple[str, str | None, Callable[[], dict[str, Any]]]
"""Its type, the worker that tells it, and what makes its fields: on the thread, not in the caller's time."""


class Announcer(Protocol):
    """Who is told of what becomes of rows; never raises, never waits."""

    def pending(self, rows: Iterable[Delivery | NewRow], /) -> None:
        """These rows are scheduled, or moved to another time."""

    def canceled(self, ids: Iterable[str]) -> None:
        """These rows are canceled."""

    def failed(self, id: str, error: Exception) -> None:
        """This row failed without a worker that would say so."""

    def tell(self, type: str, node: str, fields: Mapping[str, Any]) -> None:
        """An event that the worker `node` would send."""

    def speak_as(self, node: str) -> None:
        """This process is the worker `node`."""

    @property
    def waiting(self) -> int:
        """How many announcements are still to be sent."""
        ...


class Silent:
    """Tells nobody: `confect_events` is off, or there is no broker, as in the harness."""

    def pending(self, rows: Iterable[Delivery | NewRow], /) -> None:
        """Nothing happens."""

    def canceled(self, ids: Iterable[str]) -> None:
        """Nothing happens."""

    def failed(self, id: str, error: Exception) -> None:
        """Nothing happens."""

    def tell(self, type: str, node: str, fields: Mapping[str, Any]) -> None:
        """Nothing happens."""

    def speak_as(self, node: str) -> None:
        """Nothing happens."""

    @property
    def waiting(self) -> int:
        """None ever."""
        return 0


class Events:
    """Tells monitors through the app's broker. Each process that has something to say has a thread and a connection
    for it, until it has been silent for a minute."""

    def __init__(self, app: Celery, settings: Settings) -> None:
        self._app = app
        self._settings = settings
        self._lines: dict[int, _Line] = {}
        self._node: str | None = None

    def pending(self, rows: Iterable[Delivery | NewRow], /) -> None:
        """`task-sent` for each: PENDING, with its eta."""
        self._line().put([("task-sent", None, partial(self._sent, row)) for row in rows])

    def canceled(self, ids: Iterable[str]) -> None:
        """`task-revoked` for each."""
        told = {"terminated": False, "signum": None, "expired": False}
        node = self._node or _worker()
        self._line().put([("task-revoked", node, partial(dict, told, uuid=id)) for id in ids])

    def failed(self, id: str, error: Exception) -> None:
        """`task-failed`, with the error."""
        told = {"uuid": id, "exception": repr(error), "traceback": f"{type(error).__name__}: {error}"}
        self._line().put([("task-failed", self._node or _worker(), lambda: told)])

    def tell(self, type: str, node: str, fields: Mapping[str, Any]) -> None:
        """An event in the name of the worker `node`."""
        self._line().put([(type, node, lambda: dict(fields))])

    def speak_as(self, node: str) -> None:
        """This process is the worker `node`: what it says of rows is said in its name."""
        self._node = node

    @property
    def waiting(self) -> int:
        """How many are still to be sent by this process."""
        line = self._lines.get(os.getpid())
        return len(line.waiting) if line else 0

    def _line(self) -> _Line:
        pid = os.getpid()  # a fork inherits neither the thread nor the right to the connection
        return self._lines.get(pid) or self._lines.setdefault(pid, _Line(self._app))

    def _sent(self, row: Delivery | NewRow) -> dict[str, Any]:
        options: Mapping[str, Any] = decode(dict(row.options)) if row.options else {}
        args, kwargs = _reprs(row, show=self._settings.show_args)
        return {
            "uuid": row.id,
            "name": task_name(row.name, options),
            "args": args,
            "kwargs": kwargs,
            "retries": options.get("retries") or 0,
            "eta": row.due.to_utc().isoformat(),
            "root_id": options.get("root_id") or row.id,
            "parent_id": options.get("parent_id") or row.parent_id,
        }


def _reprs(row: Delivery | NewRow, *, show: bool) -> tuple[str, str]:
    """How positional and named arguments are shown, cut at 1024 characters each as Celery does."""
    given = row.options
    args, kwargs = given.get("argsrepr"), given.get("kwargsrepr")
    if show:
        args = args or shown(tuple(given.get("args") or ()))
        kwargs = kwargs or shown(row.decoded_args() if isinstance(row, NewRow) else row.args)
    return args or HIDDEN, kwargs or HIDDEN


def _worker() -> str | None:
    """The node name of the worker whose task runs here."""
    task = get_current_task()
    name: str | None = getattr(task.request, "hostname", None) if task is not None else None
    return name


class _Line:
    """One process's line to the broker: a bounded queue and the thread that empties it."""

    def __init__(self, app: Celery) -> None:
        self.waiting: deque[Event] = deque(maxlen=_MOST_WAITING)
        self._app = app
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._silent = threading.Event()
        self._silent.set()
        self._hurry = threading.Event()
        self._told_at = float("-inf")
        self._awake = self._speaking = self._down = self._flushing = False
        self._connection: Connection | None = None
        self._dialed: tuple[EventDispatcher, Audience] | None = None
        _lines.add(self)

    def put(self, events: Iterable[Event]) -> None:
        """Have these told; the oldest give way where too many wait."""
        waiting = self.waiting
        waiting.extend(events)
        if len(waiting) >= _CROWD:
            self._hurry.set()
        if not self._awake:  # the thread says so before it looks here for the last time: one of the two sees the other
            self._rouse()

    def _rouse(self) -> None:
        with self._lock:
            if self.waiting:
                self._silent.clear()
                self._wake.set()
                if not self._speaking:
                    with suppress(RuntimeError):  # the interpreter is about to end
                        threading.Thread(target=self._speak, name="confect-events", daemon=True).start()
                        self._speaking = True
                self._awake = self._speaking

    def flush(self, within: float) -> None:
        """Wait until all is told, so long at most, and not at all while the broker is away."""
        if self._pid == os.getpid() and self._speaking and not self._down:
            self._flushing = True
            self._hurry.set()
            self._silent.wait(within)
            self._flushing = False
            self._calm_down()

    def _speak(self) -> None:
        backoff = _FIRST_BACKOFF_SECONDS
        while self._more():
            self._gather()
            try:
                self._send_all(*self._dial())
                self._down, backoff = False, _FIRST_BACKOFF_SECONDS
            except Exception as error:
                if not self._down:
                    logger.warning("Monitors cannot be told of %d events now: %s", len(self.waiting), error)
                self._down = True
                self._hang_up()
                time.sleep(backoff * jitter(0.5, 1))
                backoff = min(backoff * 2, _LONGEST_BACKOFF_SECONDS)
        self._hang_up()

    def _gather(self) -> None:
        """After a quiet moment the first is told at once; what comes soon after it waits for others."""
        self._hurry.wait(max(self._told_at + _GATHERED_SECONDS - time.monotonic(), 0.0))
        self._told_at = time.monotonic()

    def _calm_down(self) -> None:
        with self._lock:
            if not self._flushing and len(self.waiting) < _CROWD:
                self._hurry.clear()

    def _more(self) -> bool:
        with self._lock:
            self._awake = False
            if self.waiting:
                self._awake = True
                return True
            self._silent.set()
            self._wake.clear()
        self._wake.wait(_IDLE_SECONDS)
        with self._lock:
            self._awake = self._speaking = bool(self.waiting)
            return self._speaking

    def _dial(self) -> tuple[EventDispatcher, Audience]:
        if self._dialed is None:
            # A connection of our own: those of the pool are for messages, and one that hangs would be missed there.
            self._connection = self._app.connection_for_write()
            self._connection.ensure_connection(max_retries=1)
            channel = self._connection.channel()
            dispatcher = self._app.events.Dispatcher(
                self._connection,
                channel=channel,
                buffer_while_offline=False,
                buffer_group={"task"},  # one message for a whole batch, as workers send them
                buffer_limit=_BATCH + 1,
            )
            self._dialed = dispatcher, Audience(self._app, channel)
        return self._dialed

    def _send_all(self, dispatcher: EventDispatcher, audience: Audience) -> None:
        """Tell what waits now. What comes meanwhile is gathered first: else it would be told in as many messages."""
        own, left = dispatcher.hostname, len(self.waiting)
        while left > 0 and (batch := self._take(1 if audience.is_gone else min(left, _BATCH))):
            left -= len(batch)
            try:
                for type, node, fields in batch:
                    dispatcher.hostname = own if type == "task-sent" else node or _NODE
                    dispatcher.send(type, **fields())
                audience.heard = None
                dispatcher.flush(errors=False)
            except _brokers_errors(dispatcher):
                self.waiting.extendleft(reversed(batch))
                raise
            except Exception:  # something here cannot be said at all: saying it again would be no better
                logger.exception("Monitors are not told of %d events.", len(batch))
                self._hang_up()
                return
            finally:
                dispatcher.hostname = own
            if audience.is_gone:  # nor would anybody hear the others
                left -= len(self._take(left))
        self._calm_down()

    def _take(self, most: int) -> list[Event]:
        with self._lock:
            return [self.waiting.popleft() for _ in range(min(most, len(self.waiting)))]

    def _hang_up(self) -> None:
        connection, self._connection, self._dialed = self._connection, None, None
        if connection is not None:
            with suppress(Exception):  # it may be broken already
                connection.release()


def _brokers_errors(dispatcher: EventDispatcher) -> tuple[type[Exception], ...]:
    connection: Any = dispatcher.connection
    return (OSError, OperationalError, *connection.connection_errors, *connection.channel_errors)


_lines: weakref.WeakSet[_Line] = weakref.WeakSet()


def _say_last_words(*_: Any, **__: Any) -> None:
    for line in list(_lines):
        line.flush(_LAST_WORDS_SECONDS)


atexit.register(_say_last_words)
signals.worker_process_shutdown.connect(_say_last_words, weak=False)  # a pool's child ends without atexit
