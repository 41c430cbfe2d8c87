"""Confect inside a Celery worker: a bootstep that runs the actors beside the pool."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from celery import bootsteps, signals
from celery.worker import state as worker_state

from confect_celery.runtime.batch_task import BatchRequest, BatchTask, make_batch_task
from confect_celery.runtime.batches import BATCH_TASK, BatchTransport
from confect_celery.runtime.board import Board
from confect_celery.runtime.capture import Capture, CaptureParts
from confect_celery.runtime.cron_loop import CronLoop, Crons
from confect_celery.runtime.dispatcher import Dispatcher
from confect_celery.runtime.gathering import GatheringStep, waiting
from confect_celery.runtime.kept_client import KeptClientStep
from confect_celery.runtime.late_acks import LateAcksStep
from confect_celery.runtime.loop import Loop
from confect_celery.runtime.outbox import Outbox
from confect_celery.runtime.pace import Pace
from confect_celery.runtime.parts import Parts
from confect_celery.runtime.plain import PlainTasks
from confect_celery.runtime.queues import Queues
from confect_celery.runtime.reconciler import Reconciler
from confect_celery.runtime.revoke import Panel, install_control
from confect_celery.runtime.roll_call import RollCall
from confect_celery.runtime.task import ConfectTask, attempt_of
from confect_celery.runtime.transport import CeleryTransport
from confect_celery.runtime.warm_up import have_children_ready

if TYPE_CHECKING:
    from celery.apps.worker import Worker

__all__ = ["Actors", "WorkerStep", "install"]

logger = logging.getLogger(__name__)


class ActorParts(Parts, Crons, Protocol):
    """What the actors need of the app."""


class WorkerParts(ActorParts, CaptureParts, Protocol):
    """What a worker needs of the app."""


class Actors:
    """The threads beside a worker's pool, or of a dispatcher that runs alone."""

    def __init__(self, parts: ActorParts, *, dispatch: bool) -> None:
        store, clock, settings = parts.store, parts.clock, parts.settings
        tasks = parts.app.tasks
        self.reconciler = Reconciler(
            store,
            clock,
            settings,
            _running,
            lambda name: bool(getattr(tasks.get(name), "acks_late", False)),
            parts.announcer,
        )
        self.roll_call = RollCall(store, parts.announcer)
        transport = CeleryTransport(parts.app, settings)
        self.outbox = Outbox(store, transport, clock, BatchTransport(parts.app, settings, transport), Pace(_waiting))
        self.dispatcher = Dispatcher(store, self.outbox, clock, settings, Queues(parts.app, transport))
        self.dispatches = dispatch
        self._loops: list[Loop] = [self.reconciler, self.roll_call]
        if dispatch:
            self._loops += [self.outbox, self.dispatcher, CronLoop(parts)]

    def start(self) -> None:
        """Start the threads."""
        for loop in self._loops:
            loop.start()

    def stop(self) -> None:
        """Stop claiming first, then give back what is not published, then apply what Celery told last."""
        for loop in reversed(self._loops):
            loop.stop()


def _waiting() -> int:
    """How many messages wait for a child that is free."""
    return len(worker_state.reserved_requests) - len(worker_state.active_requests) + waiting()


def _running() -> Iterator[str]:
    """The ids of the scheduled functions that this worker's pool has accepted."""
    for request in list(worker_state.active_requests):
        if isinstance(request, BatchRequest):
            yield from (entry.id for entry in request.entries)
        elif attempt_of(request.request_dict) >= 0:
            yield request.id


class WorkerStep(bootsteps.StartStopStep):
    """Checks everything at boot, then runs the actors for as long as the pool runs."""

    requires = ("celery.worker.components:Pool",)
    parts: ClassVar[ActorParts]

    def __init__(self, worker: Worker, **options: Any) -> None:
        super().__init__(worker, **options)
        self.actors: Actors | None = None
        self._panel = Panel(lambda _: None, lambda: None)
        signals.worker_process_shutdown.connect(lambda **_: self.parts.store.events.close(), weak=False)
        BatchTask.board = Board()
        if BATCH_TASK not in self.parts.app.tasks:
            self.parts.app.register_task(make_batch_task(self.parts))
        PlainTasks(self.parts).install()  # before the pool's children copy what is registered
        self._no_more_children = have_children_ready(self.parts)

    def start(self, parent: Worker) -> None:
        """Start the actors once the pool stands: its first children must not inherit their threads' locks."""
        with self.parts.store.database.thread():
            self.parts.check()
            actors = self.actors = Actors(self.parts, dispatch=self.parts.settings.dispatcher == "worker")
            actors.reconciler.compare_clocks()  # before the first message comes
        self._say_what_the_pool_cannot_do(parent)
        ConfectTask.reconciler = BatchTask.reconciler = actors.reconciler
        self.parts.announcer.speak_as(parent.hostname)  # type: ignore[attr-defined]
        self._panel = Panel(actors.reconciler.revoked, actors.roll_call.ask)
        self._panel.install()
        signals.task_unknown.connect(self._on_unknown, weak=False)
        signals.task_revoked.connect(self._on_revoked, weak=False)
        actors.start()

    def stop(self, parent: Worker) -> None:
        """End the actors."""
        self._no_more_children()
        self._panel.remove()
        signals.task_unknown.disconnect(self._on_unknown)
        signals.task_revoked.disconnect(self._on_revoked)
        actors, self.actors = self.actors, None
        if actors is not None:
            actors.stop()

    def terminate(self, parent: Worker) -> None:
        """End the actors at a cold shutdown as well."""
        self.stop(parent)

    def _on_unknown(self, message: Any = None, name: str = "", id: str = "", **_: Any) -> None:
        attempt = attempt_of(message.headers)
        if self.actors is not None and attempt >= 0:
            self.actors.reconciler.unknown(id, attempt, name)

    def _on_revoked(self, request: Any = None, **_: Any) -> None:
        if self.actors is not None and attempt_of(request) >= 0:
            self.actors.reconciler.revoked([request.id])

    def _say_what_the_pool_cannot_do(self, worker: Worker) -> None:
        pool = getattr(getattr(worker, "pool_cls", None), "__module__", "").rpartition(".")[2]
        if pool in ("solo", "thread"):
            logger.warning("The %s pool has no time limits: a function that never ends is not stopped.", pool)


def install(parts: WorkerParts) -> None:
    """Have every worker of the app run the actors, and every process of it capture what it publishes."""
    Capture(parts).install()
    install_control(parts.app)
    step = type("ConfectStep", (WorkerStep,), {"parts": parts})
    parts.app.steps["worker"].add(step)
    gathering = type("ConfectGathering", (GatheringStep,), {"parts": parts})
    parts.app.steps["consumer"].update({KeptClientStep, LateAcksStep, gathering})
