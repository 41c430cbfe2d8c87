"""The scheduler for async callers: a thin face, no second implementation."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    from confect_celery.scheduler import Delay, Scheduler, When
    from confect_celery.store import Delivery, ScheduledFunction, ScheduledFunctionId

__all__ = ["AsyncScheduler"]

T = TypeVar("T")


class AsyncBind(Protocol):
    """SQLAlchemy's AsyncSession or AsyncConnection."""

    async def run_sync(self, fn: Callable[..., T], /) -> T:
        """Call `fn` with the synchronous session or connection inside."""
        ...


@dataclass(frozen=True)
class AsyncScheduler:
    """`Scheduler` with awaitable methods, which take and raise the same.

    Without `using()` each call runs on a thread and commits at once. Inside an AsyncSession or AsyncConnection it joins
    that transaction; what dispatchers may find too late is published after it on a thread, so the event loop never
    waits for the broker.
    """

    _scheduler: Scheduler
    _bind: AsyncBind | None = None

    def using(self, bind: AsyncBind) -> AsyncScheduler:
        """The same inside the open transaction of an AsyncSession or AsyncConnection."""
        return replace(self, _bind=bind)

    async def run_after(self, delay: Delay, function: Any, args: Any = None) -> ScheduledFunctionId:
        """As `Scheduler.run_after`."""
        return await self._do(lambda scheduler: scheduler.run_after(delay, function, args))

    async def run_at(self, when: When, function: Any, args: Any = None) -> ScheduledFunctionId:
        """As `Scheduler.run_at`."""
        return await self._do(lambda scheduler: scheduler.run_at(when, function, args))

    async def run_many(self, jobs: Iterable[tuple[Delay | When, Any, Any]]) -> list[ScheduledFunctionId]:
        """As `Scheduler.run_many`."""
        return await self._do(lambda scheduler: scheduler.run_many(jobs))

    async def cancel(self, id: str) -> bool:
        """As `Scheduler.cancel`."""
        return await self._do(lambda scheduler: scheduler.cancel(id))

    async def reschedule(self, id: str, when: Delay | When) -> bool:
        """As `Scheduler.reschedule`."""
        return await self._do(lambda scheduler: scheduler.reschedule(id, when))

    async def get(self, id: str) -> ScheduledFunction | None:
        """As `Scheduler.get`."""
        return await self._do(lambda scheduler: scheduler.get(id))

    async def _do(self, call: Callable[[Scheduler], T]) -> T:
        if self._bind is None:
            database = self._scheduler._desk.store.database
            return await database.on_a_thread(lambda: call(self._scheduler))
        loop = asyncio.get_running_loop()
        publish = self._scheduler._desk.publish

        def publish_on_a_thread(delivery: Delivery) -> None:
            loop.run_in_executor(None, publish, delivery)

        beside = replace(self._scheduler, _desk=replace(self._scheduler._desk, publish=publish_on_a_thread))
        return await self._bind.run_sync(lambda bind: call(beside.using(bind)))
