"""A shop whose child is this process: what it is given in batches it holds, and others do to it what a test says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from celery import Celery, Task, signals
from pydantic import BaseModel

from confect_celery import Confect, DateTime, Duration, ScheduledFunction
from confect_celery.runtime import CeleryTransport
from confect_celery.runtime.batch_run import BatchRun
from confect_celery.runtime.batches import BATCH_HEADER
from confect_celery.runtime.messages import task_name
from confect_celery.runtime.plain import PlainTasks
from confect_celery.store import HELD_FOR, Delivery, OwnTransaction, Statements
from tests.support.waiting import wait_for

__all__ = ["LATER", "Refused", "Shop"]

LATER = HELD_FOR + Duration.seconds(1)
"""So much later others may have what is held now."""


class Died(BaseException):
    """The worker of this process is gone."""


class Number(BaseModel):
    n: int


class Refused(Exception):
    """What a function raises on purpose."""


class Shop:
    """Two functions that tell that they ran, and do what a test asks of them; both have been brief so far."""

    def __init__(self, url: str) -> None:
        self.ran: list[int] = []
        self.doings: dict[int, Callable[[], object]] = {}
        app = Celery("holding", broker="memory://", set_as_current=False)
        app.conf.update(confect_database_url=url, confect_min_delay=0)
        self.confect = Confect(app)

        @self.confect.group("t").internal_action
        def act(args: Number) -> None:
            self._run(args.n)

        @app.task(name="plain", bind=True, shared=False, max_retries=2)
        def plain(task: Task[..., None], n: int) -> None:
            try:
                self._run(n)
            except Refused as refused:
                raise task.retry(exc=refused, countdown=20) from None

        self.functions: dict[str, Any] = {"action": act, "task": plain}
        for function in (act, plain):
            self.known_for(function.name, seconds=0)
        self.plain_tasks = PlainTasks(self.confect)
        self.plain_tasks.install()
        self.store = self.confect.store

    def close(self) -> None:
        signals.task_postrun.disconnect(self.plain_tasks._ended)
        self.confect.store.database.dispose()
        self.confect.app.close()

    def _run(self, n: int) -> None:
        self.ran.append(n)
        self.doings.pop(n, lambda: None)()

    def known_for(self, name: str, *, seconds: float) -> None:
        for _ in range(3):
            self.confect.brevity.ran(name, seconds)

    def schedule(self, *kinds: str) -> list[str]:
        """One of each kind, numbered from 0, all due now; no message of them is under way."""
        jobs = [(Duration.zero, self.functions[kind], {"n": n}) for n, kind in enumerate(kinds)]
        return [str(id) for id in self.confect.scheduler.run_many(jobs)]

    def rows(self, ids: Sequence[str]) -> list[ScheduledFunction]:
        with self.confect.reader() as db:
            return [db.table("_scheduled_functions").get(id) for id in ids]

    def states(self, ids: Sequence[str]) -> list[str]:
        return [row.state.kind.value for row in self.rows(ids)]

    def receive(self, entries: Sequence[tuple[str, int]]) -> int:
        """A child receives a batch of these rows at these attempts."""
        names = [task_name(row.name, row.options) for row in self.rows([id for id, _ in entries])]
        header = [[id, attempt, name] for (id, attempt), name in zip(entries, names, strict=True)]
        request = SimpleNamespace(id="batch", hostname="here", delivery_info={}, **{BATCH_HEADER: header})
        return BatchRun(self.confect, request, None, CeleryTransport(self.confect.app, self.confect.settings)).run()

    def deliver(self, ids: Sequence[str], attempt: int = 0) -> int:
        return self.receive([(id, attempt) for id in ids])

    def dispatch(self, after: Duration = Duration.zero) -> list[Delivery]:
        """What a dispatcher takes that looks so much later."""
        now, rows = DateTime.now() + after, self.store.rows

        def claim(transaction: OwnTransaction) -> list[Delivery]:
            return rows.claim_due(
                transaction.connection, now=now, ahead=now, redelivery=Duration.seconds(30), batch=100
            )

        return self.store.database.retrying(claim)

    def server_fails(self) -> None:
        """What is left of a crash of the server, where nothing was forgotten: it counts anew since when it kept all."""
        with self.store.database.autocommit() as connection:
            connection.exec_driver_sql("SELECT pg_stat_reset_shared('bgwriter')")

    def wait_until_all_is_kept(self) -> None:
        """So long that what is held from now on was surely held after the server's last failure."""

        def is_old() -> bool:
            with self.store.database.autocommit() as connection:
                since = self.store.database.dialect.kept_all_since(connection)
            return since is not None and since + Duration.seconds(1.1) < DateTime.now()

        wait_for(is_old, within=10, what="the server to be a second old")

    def dies_with(self, ids: Sequence[str], at: int, doing: Callable[[], object] = lambda: None) -> None:
        """The child gets these, and its whole worker dies in the midst of number `at`, right after `doing`."""

        def die() -> None:
            doing()
            raise Died

        self.doings[at] = die
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Statements, "release", lambda *_: 0)  # the dead do nothing more
            with pytest.raises(Died):
                self.deliver(ids)
