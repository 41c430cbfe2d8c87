"""On Redis, that a worker has taken a message of ours off is told together with the next message that comes to it.

A worker's main process waits for Redis three times a message: to get it, to note that it has it, and that it is done.
Two of them are one here. A message of ours that is told late may come again if its worker is killed first: nothing
starts by it, for it names an attempt that is claimed. The shop's other messages are acknowledged as ever.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from celery import bootsteps
from kombu.transport.virtual import QoS

from confect_celery.runtime.batches import BATCH_TASK
from confect_celery.runtime.kept_client import is_kombus_redis
from confect_celery.runtime.task import attempt_of

if TYPE_CHECKING:
    from celery.worker.consumer import Consumer

__all__ = ["LateAcks", "LateAcksStep"]

logger = logging.getLogger(__name__)

_LATEST_SECONDS: Final = 0.01
"""Without a message to go with, they are told after so long."""

_AGAIN_SECONDS: Final = 1.0
"""After a failure they are told again after so long."""


class LateAcks:
    """Those of one channel, from `begin()` to `end()`. `hub` is the worker's loop, which all calls come from."""

    def __init__(self, channel: Any, hub: Any) -> None:
        self.waiting: list[str] = []
        """The delivery tags that are still to be told."""
        self._qos = channel.qos
        self._hub = hub
        self._thread = threading.get_ident()
        self._planned: Any = None
        self._carrying = False

    def begin(self, waiting: list[str]) -> None:
        """Stand between the channel and Redis. `waiting` is what was not told on the channel before this one."""
        qos = self._qos
        self.waiting.extend(waiting)
        self._own_ack, self._own_append, self._own_pipe = qos.ack, qos.append, qos.pipe_or_acquire
        qos.ack, qos.append, qos.pipe_or_acquire = self._ack, self._append, self._pipe
        if self.waiting:
            self._plan(_LATEST_SECONDS)

    def end(self, *, tell: bool) -> list[str]:
        """Leave the channel to itself; `tell` what waits first. Returns what was not told."""
        for name in ("ack", "append", "pipe_or_acquire"):
            vars(self._qos).pop(name, None)
        if self._planned is not None:
            self._planned.cancel()
        if tell:
            self._try_to_tell()
        return self.waiting

    def _ack(self, tag: str) -> None:
        if threading.get_ident() != self._thread or not self._is_ours(tag):
            self._own_ack(tag)
            return
        self.waiting.append(tag)
        QoS.ack(self._qos, tag)  # what the channel itself knows: there is room for another
        if self._planned is None:
            self._plan(_LATEST_SECONDS)

    def _is_ours(self, tag: str) -> bool:
        # Whatever runs without a claim would run again: a plain task does, where its message names no attempt readably.
        try:
            headers = self._qos.get(tag).headers
            return attempt_of(headers) >= 0 or headers.get("task") == BATCH_TASK
        except (KeyError, AttributeError):  # acknowledged before, or somebody's without any
            return False

    def _append(self, message: Any, tag: str) -> None:
        self._carrying = threading.get_ident() == self._thread
        try:
            self._own_append(message, tag)
        finally:
            self._carrying = False

    @contextmanager
    def _pipe(self, pipe: Any = None, client: Any = None) -> Iterator[Any]:
        """What kombu fills and executes to note that a message came: with what waits in front of it."""
        with self._own_pipe(pipe, client) as opened:
            if not self._carrying or pipe is not None:
                yield opened
                return
            self._carrying = False
            with self._told_by(opened):
                yield opened

    @contextmanager
    def _told_by(self, pipe: Any) -> Iterator[None]:
        tags = list(self.waiting)  # few, for while Redis is away no more come
        self.waiting.clear()
        try:
            for tag in tags:
                self._qos._remove_from_indices(tag, pipe)
            yield
        except BaseException:
            self.waiting[:0] = tags  # to remove one twice does no harm
            raise

    def _plan(self, seconds: float) -> None:
        self._planned = self._hub.call_later(seconds, self._tell)

    def _tell(self) -> None:
        self._planned = None
        if not self._try_to_tell():
            self._plan(_AGAIN_SECONDS)

    def _try_to_tell(self) -> bool:
        """Never raises: a timer that does would have the worker connect anew."""
        try:
            if self.waiting:
                with self._own_pipe() as pipe, self._told_by(pipe):
                    pipe.execute()
        except Exception as error:
            logger.warning("Redis cannot be told now of %d messages that are done: %s", len(self.waiting), error)
            return False
        return True


class LateAcksStep(bootsteps.StartStopStep):
    """Once a worker consumes, and again whenever it has had to connect anew."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, parent: Consumer, **options: Any) -> None:
        super().__init__(parent, **options)
        self._acks: LateAcks | None = None
        self._untold: list[str] = []

    def start(self, parent: Consumer) -> None:
        """Begin on the worker's channel, where it is kombu's own on Redis and the worker has a loop."""
        consuming: Any = parent  # the stubs know little of it
        channel, hub = consuming.task_consumer.channel, consuming.hub
        if hub is not None and is_kombus_redis(channel):
            self._acks = LateAcks(channel, hub)
            self._acks.begin(self._untold)

    def stop(self, parent: Consumer) -> None:
        """End, before the channel does. Of a worker that is to connect anew the next channel tells what waits: now it
        would try for seconds, on a connection that is lost."""
        acks, self._acks = self._acks, None
        if acks is not None:
            anew = parent.blueprint.state == bootsteps.RUN  # type: ignore[attr-defined]  # the stubs forget it
            self._untold = acks.end(tell=not anew)

    def terminate(self, parent: Consumer) -> None:
        """At a cold shutdown as well."""
        self.stop(parent)
