"""The composition root: a Celery app and its Confect."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cached_property
from typing import Any

import sqlalchemy as sa
from celery import Celery

from confect_celery import runtime
from confect_celery.crons import CronJob, CronJobs, CronState
from confect_celery.drafts import Drafts
from confect_celery.errors import ConfectError, InvalidCron
from confect_celery.functions import (
    ActionRunner,
    FunctionRef,
    Group,
    MutationRunner,
    QueryRunner,
    Refs,
    Registry,
    Services,
)
from confect_celery.invocation import BUILT_IN, Invocations
from confect_celery.metrics import Events, Metrics
from confect_celery.scheduler import Desk, Scheduler
from confect_celery.settings import Settings
from confect_celery.store import (
    DatabaseClock,
    DatabaseReader,
    DatabaseWriter,
    Delivery,
    EncodedCall,
    OwnTransaction,
    Store,
)
from confect_celery.timing import Clock, DateTime

__all__ = ["Confect"]


class Confect:
    """A durable scheduler for the Celery app `app`.

    Settings are read from `app.conf` when they are first needed, so the app may be configured later. `schema` is the
    shop's SQLAlchemy MetaData; without it `db.table("…")` looks tables up in the database itself. `crons` are run by
    the dispatchers; `confect.crons.add(…)` adds more. `metrics` is told what happens (docs/observability.md).

    >>> from celery import Celery
    >>> confect = Confect(Celery("shop", set_as_current=False))
    >>> users = confect.group("users")
    >>> @users.internal_mutation
    ... def forget(scheduler: Scheduler) -> None: ...
    >>> forget.name
    'internal/users/forget'
    """

    def __init__(
        self,
        app: Celery,
        schema: sa.MetaData | None = None,
        crons: CronJobs | None = None,
        *,
        metrics: Metrics | None = None,
    ) -> None:
        self.app = app
        self.events = Events(metrics)
        self.crons = CronJobs() if crons is None else crons
        self.registry = Registry(self._on_add)
        self.refs = Refs()
        self.services = Services()
        for service, kinds in BUILT_IN.items():
            self.services.declare(service, kinds)
        self.schema = schema
        self._parts = _Parts(self)
        app.confect = self  # type: ignore[attr-defined]  # where the command line finds it
        runtime.install(self)

    @property
    def metrics(self) -> Metrics | None:
        """Where the numbers go; None, the default: nowhere."""
        return self.events.metrics

    @metrics.setter
    def metrics(self, metrics: Metrics | None) -> None:
        self.events.metrics = metrics

    # -- defining functions

    def group(self, path: str) -> Group:
        """A group of functions; `path` may be nested with dots, as in `billing.invoices`."""
        return Group(self.registry, path)

    def provide(self, service: Any, factory: Callable[..., Any]) -> None:
        """Let functions ask for `service` by annotation; see `Services.provide` for what a factory may be."""
        self.services.provide(service, factory)

    def _on_add(self, ref: FunctionRef[Any, Any]) -> None:
        if ref.visibility == "internal" and ref.kind != "query":
            self.app.register_task(runtime.make_task(ref, lambda: self.gate))

    def check(self) -> None:
        """Raise what is wrong with settings, functions, services and the table: ConfigurationError, found at start."""
        self.settings.check_broker(self.app.conf.broker_transport_options or {})
        self.check_code()
        self.store.check_schema()

    def check_code(self) -> None:
        """The part that needs no database: services, crons, and what tasks say of their capture."""
        for ref in self.registry:
            self.services.check(ref)
        for job in self.crons:
            try:
                self.encode(job)
            except ConfectError as error:
                raise InvalidCron(job.name, str(error)) from error
        runtime.check_modes(self.app)

    # -- calling them

    @property
    def run_query(self) -> QueryRunner:
        """Run a query, public or internal, in one read transaction; gives back its result."""
        return QueryRunner(self.invocations.run_query)

    @property
    def run_mutation(self) -> MutationRunner:
        """Run a mutation in one transaction; transient database errors are retried."""
        return MutationRunner(self.invocations.run_mutation)

    @property
    def run_action(self) -> ActionRunner:
        """Run an action here and now."""
        return ActionRunner(self.invocations.run_action)

    @property
    def scheduler(self) -> Scheduler:
        """The scheduler outside functions: each call commits at once, unless `using()` joins a transaction."""
        return self.invocations.scheduler()

    def reader(self) -> AbstractContextManager[DatabaseReader]:
        """The tables to read, in one transaction: `with confect.reader() as db:`."""
        return self.invocations.reader()

    def writer(self) -> AbstractContextManager[DatabaseWriter]:
        """The tables to write, in one transaction that commits at the end of the block."""
        return self.invocations.writer()

    # -- the parts, each made when first needed

    @property
    def settings(self) -> Settings:
        """The `confect_…` settings, checked; raises InvalidSettings."""
        return self._parts.settings

    @property
    def clock(self) -> Clock:
        """The time that everything here goes by."""
        return self._parts.clock

    @property
    def store(self) -> Store:
        """The table and the database it is in."""
        return self._parts.store

    @property
    def invocations(self) -> Invocations:
        """How functions are called."""
        return self._parts.invocations

    @property
    def gate(self) -> runtime.Gate:
        """How rows are run."""
        return self._parts.gate

    @property
    def brevity(self) -> runtime.Brevity:
        """Which functions are brief, as far as this process has seen."""
        return self._parts.brevity

    @property
    def announcer(self) -> runtime.Announcer:
        """Who is told of what becomes of rows: monitors such as Flower, through the broker."""
        return self._parts.announcer

    def publish(self, delivery: Delivery) -> object:
        """Hand over to Celery a row that is nearly due."""
        return self._parts.publish(delivery)

    def scheduling(self) -> Scheduler:
        """The scheduler of the mutation that runs in this thread, or else one whose every call commits at once."""
        return self.invocations.here()

    def encode(self, job: CronJob) -> EncodedCall:
        """The call that a fire of the cron makes; raises as `run_after` does."""
        return self.invocations.scheduler().encode(job.function, job.args)

    def schedule_in(self, transaction: OwnTransaction, call: EncodedCall, id: str, due: DateTime) -> object:
        """Write the row of an encoded call in this transaction, due at any time."""
        return self.invocations.scheduler_in(transaction).take_over(call, id, due, sent=False)

    def cron_states(self) -> list[CronState]:
        """The crons of this process's code, in the order they were added, with what the table knows of them."""
        store = self.store
        rows = store.database.reading(store.crons.all)
        states = []
        for job in self.crons:
            row, spec, name = rows.get(job.name), job.schedule.text, self.encode(job).name
            if row is None:
                states.append(CronState(job.name, spec, name, None, None, None, None, 0, 0, stale=False))
                continue
            stale = row.spec != spec
            last = self.scheduler.get(row.last_id) if row.last_id else None
            state = last.state.kind.value if last else None
            next_at = None if stale else row.next_at
            known = (next_at, row.last_at, row.last_id, state, row.missed, row.skipped)
            states.append(CronState(job.name, spec, name, *known, stale=stale))
        return states

    def run_delivery(self, delivery: Delivery) -> runtime.Outcome:
        """Run one delivered row in this process, as a worker would."""
        return self.gate.run(delivery.id, delivery.attempt, delivery.name)

    @contextmanager
    def redirected(
        self,
        *,
        clock: Clock | None = None,
        database_url: str | None = None,
        publish: Callable[[Delivery], object] | None = None,
    ) -> Iterator[None]:
        """For the length of the block, go by another clock, use another database, or publish elsewhere."""
        before = self._parts
        settings = before.settings
        if database_url is not None:
            settings = settings.model_copy(update={"database_url": database_url})
        self._parts = _Parts(self, settings, clock or before.clock, publish or before.publish)
        self._parts.__dict__["announcer"] = before.announcer if publish is None else runtime.Silent()
        if database_url is None:
            self._parts.__dict__["store"] = before.store
        try:
            yield
        finally:
            if database_url is not None:
                self._parts.store.database.dispose()
            self._parts = before


class _Parts:
    """The parts of an app, each made when first needed."""

    def __init__(
        self,
        confect: Confect,
        settings: Settings | None = None,
        clock: Clock | None = None,
        publish: Callable[[Delivery], object] | None = None,
    ) -> None:
        self._confect = confect
        if clock is not None:
            self.__dict__["clock"] = clock
        if settings is not None:
            self.__dict__["settings"] = settings
        if publish is not None:
            self.__dict__["publish"] = publish

    @cached_property
    def settings(self) -> Settings:
        return Settings.read(self._confect.app.conf)

    @cached_property
    def store(self) -> Store:
        settings = self.settings
        confect, namespace = self._confect, settings.schema_
        return Store(settings.database_url, schema=confect.schema, namespace=namespace, events=confect.events)

    @cached_property
    def clock(self) -> Clock:
        return DatabaseClock(self.store.database)

    @cached_property
    def publish(self) -> Callable[[Delivery], object]:
        transport = runtime.CeleryTransport(self._confect.app, self.settings)
        return runtime.Outbox(self.store, transport, self.clock).publish

    @cached_property
    def announcer(self) -> runtime.Announcer:
        return runtime.Events(self._confect.app, self.settings) if self.settings.events else runtime.Silent()

    @cached_property
    def invocations(self) -> Invocations:
        confect = self._confect
        drafts = Drafts(confect.registry, self.settings, runtime.call_of)
        desk = Desk(confect.registry, self.store, self.clock, self.settings, drafts, self.publish, self.announcer)
        return Invocations(desk, confect.services)

    @cached_property
    def gate(self) -> runtime.Gate:
        registry = self._confect.registry
        return runtime.Gate(self.store, registry, self.invocations, self.clock, self.settings, self.brevity)

    @cached_property
    def brevity(self) -> runtime.Brevity:
        return runtime.Brevity()
