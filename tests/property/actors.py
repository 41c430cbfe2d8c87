"""What callers, dispatchers, workers and bystanders do, each a method of the play."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from confect_celery import DatabaseWriter, Duration, MutationRunner, ScheduledFunctionId, Scheduler
from confect_celery.functions import failure
from confect_celery.runtime import Dropped, Failed, Postponed, Succeeded
from confect_celery.runtime.claims import Claims
from confect_celery.runtime.gate import Again
from confect_celery.runtime.relay import Relay
from confect_celery.runtime.task import attempt_of
from confect_celery.runtime.transport import ATTEMPT_HEADER
from confect_celery.store import Pending
from confect_celery.timing import DateTime
from tests.property.child import Child
from tests.property.model import LIVE, TERMINAL, Job, Row, violated
from tests.property.plans import Meanwhile, Plan, Step
from tests.property.world import BATCH, LATE, ChildDied, Died, Frame, Key, Message, World

MOST_NESTED = 3
MOST_DISTURBED = 3
WITHOUT_LOCKS = ("cancel it", "duplicate", "reschedule it")
"""What others can do to a mutation that has written already: it holds row locks, and we are one thread."""


class Declared(Exception):
    """What a function raises on purpose."""


class Retry(Exception):
    """A plain task asks Celery to try it again."""


class Undone(Exception):
    """Rolls back a savepoint, or a transaction."""


class Play(World):
    """The world with its people."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        play, group = self, self.confect.group("p")

        @group.internal_mutation(errors=(Declared,))
        def mutation(
            args: Key,
            db: DatabaseWriter,
            scheduler: Scheduler,
            run_mutation: MutationRunner,
            me: ScheduledFunctionId | None,
        ) -> None:
            play.mutation_body(args.key, db, scheduler, run_mutation)

        @group.internal_action(errors=(Declared,))
        def action(args: Key, scheduler: Scheduler) -> None:
            play.action_body(args.key, scheduler)

        @group.internal_mutation
        def part(args: Key, db: DatabaseWriter, scheduler: Scheduler) -> None:
            """A nested mutation: schedules one function, and fails for key 0."""
            play.schedule_child(scheduler, 1.0)
            if args.key == 0:
                db.table("ledger").insert({"job": -1})
                raise Undone

        @group.mutation
        def outer(args: Key, scheduler: Scheduler) -> None:
            """Schedules what stands ready, and fails for key 0."""
            for asked in play.ready:
                job = play.job_in(*asked)
                play.frames[-1].append(play.exists(job))
                scheduler.run_after(play.until(job), play.function(job.kind), {"key": job.key})
            if args.key == 0:
                raise Undone

        @self.confect.app.task(name="plain", shared=False)
        def plain(key: int) -> None: ...

        @self.confect.app.task(name=LATE, shared=False, acks_late=True, reject_on_worker_lost=True)
        def late(key: int) -> None: ...

        self.functions: dict[str, Any] = {"mutation": mutation, "action": action, "task": plain, "late": late}
        self.part, self.outer = part, outer
        self.dies_at_the_claim = False
        self.ready: list[tuple[str, float, Plan]] = []

    def function(self, kind: str) -> Any:
        return self.functions[kind]

    def until(self, job: Job) -> Duration:
        return Duration.micros(job.time - self.now)

    # -- callers

    def job_in(self, kind: str, seconds: float, plan: Plan) -> Job:
        time = self.now + int(seconds * 1e6)
        return self.new_job(kind, plan, time, max(time, self.now + 1_000_000))

    def schedule(self, how: str, kind: str, seconds: float, plan: Plan) -> None:
        """By one of the ways there are, in a transaction of its own."""
        scheduler, function = self.confect.scheduler, self.function(kind)
        if how == "run_at the past":
            seconds = -seconds
        job = self.job_in(kind, seconds, plan)
        when = DateTime.from_epoch_millis(job.time // 1000) + Duration.micros(job.time % 1000)
        if how == "run_after":
            with self.intending(self.exists(job)):
                scheduler.run_after(self.until(job), function, {"key": job.key})
        elif how == "run_many":
            second = self.job_in(kind, seconds, Plan())
            jobs = [(self.until(j), function, {"key": j.key}) for j in (job, second)]
            with self.intending(self.exists(job), self.exists(second)):
                scheduler.run_many(jobs)
        elif how in ("mutation", "mutation that fails"):
            self.ready, before = [(kind, seconds, plan)], len(self.model.jobs)
            try:
                with suppress(Undone):
                    self.confect.run_mutation(self.outer, Key(key=int(how == "mutation")))
            finally:
                if len(self.model.jobs) > before + 1:
                    violated(3, "one call of a mutation committed twice")
        else:
            with self.intending(self.exists(job)):
                scheduler.run_at(when, function, {"key": job.key})

    def schedule_batch(self, kinds: Sequence[str], *plans: Plan) -> None:
        """Some functions for one instant, whose messages may go together; the last of `plans` is the rest's."""
        for number, kind in enumerate(kinds):
            self.schedule("run_after", kind, 1.0, plans[min(number, len(plans) - 1)])

    def cancel(self, number: int, how: str = "cancel") -> None:
        row = self.row(number)
        if row is None:
            return
        with self.intending(self.is_canceled(row)):
            if how == "delete" and row.state in LIVE:
                with self.confect.writer() as db:
                    db.table("_scheduled_functions").delete(row.id)
                return
            said = self.confect.scheduler.cancel(row.id)
        if not self.peace and row.state == "canceled" and row.completed == self.now:
            return  # asked again after a trouble, it knows its own cancel by the instant; no clock stands still outside
        self._said(5, "cancel", said, row.state in LIVE, row)

    def reschedule(self, number: int, seconds: float) -> None:
        row = self.row(number)
        if row is None:
            return
        with self.intending(self.is_moved(row, self.now + int(seconds * 1e6))):
            said = self.confect.scheduler.reschedule(row.id, Duration.seconds(seconds))
        self._said(6, "reschedule", said, row.state == "pending", row)
        if said and self.peace:
            self._is_due(row.key, seconds)

    def _is_due(self, key: int, seconds: float) -> None:
        """The row is due in so long, or its message is under way, and counts as lost a while after that."""
        row, due, lost_at = self.rows()[key], self.now + int(seconds * 1e6), self.now + self.horizon + self.redelivery
        if row.next_at not in (due, lost_at):
            violated(6, f"it is due at {due}, or its message lost at {lost_at}: {row}")

    def _said(self, number: int, what: str, said: bool, truth: bool, row: object) -> None:
        self.happened[f"{what} {said}"] += 1
        if said is not truth:
            violated(number, f"{what} said {said} of {row}")

    def joined(self, bind: str, steps: Sequence[Step], end: str) -> None:
        """A transaction of the caller's, on a Session or a Connection, with savepoints."""
        engine = self.store.database.engine
        intents: list[Any] = []

        def committed(_: Any = None) -> None:
            for intent in intents:
                intent()
            intents.clear()

        def session_committed(session: Session) -> None:
            if not session.in_nested_transaction():
                committed()

        with Session(engine) if bind == "session" else engine.connect() as own:
            connection = own.connection() if isinstance(own, Session) else own
            if isinstance(own, Session):
                event.listen(own, "after_commit", session_committed)
            self.writers += 1
            try:
                self._steps(own, connection, steps, intents)
                self.look()  # from outside, nothing of it is there yet
                if end == "commit":
                    own.commit()
                    committed()
                else:
                    own.rollback()
            finally:
                self.writers = max(self.writers - 1, 0)

    def _steps(self, own: Any, connection: sa.Connection, steps: Sequence[Step], intents: list[Any]) -> None:
        scheduler = self.confect.scheduler.using(own)
        for step in steps:
            if step.what.startswith("savepoint"):
                before = len(intents)
                with suppress(Undone), own.begin_nested():
                    self._steps(own, connection, step.inside, intents)
                    if step.what == "savepoint undone":
                        del intents[before:]
                        raise Undone
            elif step.what == "schedule":
                job = self.job_in(step.kind, step.seconds, step.plan)
                intents.append(self.exists(job))
                scheduler.run_after(self.until(job), self.function(step.kind), {"key": job.key})
            else:
                rows = list(self.rows(connection).values())
                if not rows:
                    continue
                row = rows[step.number % len(rows)]
                if step.what == "cancel":
                    intents.append(self.is_canceled(row))
                    self._said(5, "cancel", scheduler.cancel(row.id), row.state in LIVE, row)
                else:
                    intents.append(self.is_moved(row, self.now + int(step.seconds * 1e6)))
                    said = scheduler.reschedule(row.id, Duration.seconds(step.seconds))
                    self._said(6, "reschedule", said, row.state == "pending", row)

    # -- dispatchers

    def dispatch(self) -> None:
        """Claim one batch, exactly the one that the contract says."""
        before, now, messages = self.rows(), self.now, len(self.broker.messages)
        claimed = self.dispatcher.claim()
        if len(self.broker.messages) > messages:
            violated(2, f"published before it was committed that they are handed over: {claimed}")
        self.outbox.put(claimed)
        ready = [
            (row.next_at, row.id)
            for row in before.values()
            if row.state == "pending"
            and row.next_at is not None
            and (row.next_at <= now or (row.deliveries == 0 and row.next_at <= now + self.horizon))
        ]
        expected = [id for _, id in sorted(ready)[:BATCH]]
        if [delivery.id for delivery in claimed] != expected:
            violated(2, f"the dispatcher took {[d.id for d in claimed]} at {now}, not {expected} of {before}")
        after = {row.id: row for row in self.rows().values()}
        for row in before.values():
            if row.id in expected:
                lost_at = now + self.horizon + self.redelivery * 2 ** min(row.deliveries, 6)
                if after[row.id].next_at != lost_at or after[row.id].deliveries != row.deliveries + 1:
                    violated(2, f"handed over at {now}: {row} -> {after[row.id]}; lost at {lost_at}")

    def publish(self) -> None:
        """Publish what is due by now."""
        with self._only_for_held():
            self.outbox.tick()

    def stop_dispatcher(self) -> None:
        """In order: what was not published goes back to the table."""
        with self._only_for_held():
            self.outbox.closing()
        self.start_dispatcher()

    @contextmanager
    def _only_for_held(self) -> Iterator[None]:
        """What is given back to the table must still be what was claimed."""
        held, before = {(d.id, d.attempt) for _, _, d in self.outbox._exact}, self.rows()
        yield
        for key, row in self.rows().items():
            if row != before[key] and (row.id, before[key].attempt) not in held:
                violated(6, f"given back to the table by a dispatcher that held {held}: {before[key]} -> {row}")

    def go_on(self, hooks: Sequence[Meanwhile] = (), times: int = 1) -> None:
        """What mostly happens: time comes to the next row, which is claimed, published and delivered."""
        due = [row.next_at for row in self.rows().values() if row.next_at is not None]
        if due and not self.broker.messages:
            self.advance(max(min(due) - self.now, 0) / 1e6)
            self.dispatch()
            self.publish()
        for message in list(self.broker.messages):
            if message in self.broker.messages:
                self.broker.messages.remove(message)
                for _ in range(times):
                    self.deliver(message, at_eta=times == 1, hooks=hooks)

    def deliver_all(self) -> None:
        """All that is in the broker now."""
        messages, self.broker.messages = self.broker.messages, []
        for message in messages:
            self.deliver(message)

    # -- workers

    def deliver_together(
        self, messages: Sequence[Message], between: Sequence[Meanwhile] = (), *, shares: bool = False
    ) -> None:
        """A worker receives functions' messages as one; `shares`: mutations are known as brief."""
        messages = [m for m in messages if m.kind in ("mutation", "action")]
        if self.running or self.waiting or not self.can_write or not messages:
            return
        self.advance(max(max(m.due for m in messages) - self.now, 0) / 1e6)
        Child(self, messages, between, shares=shares).run()

    def deliver(
        self,
        message: Message,
        *,
        at_eta: bool = True,
        hooks: Sequence[Meanwhile] = (),
        loaded: Pending | None = None,
        relay: Relay | None = None,
        child: Child | None = None,
    ) -> bool:
        """A worker receives the message; whether it is to run again. Early, the gate itself must hold it; a plain task
        is held by Celery. `loaded`, `relay` and the `child` that dies as a whole are a batch's."""
        inside = child is not None and child.sharing.is_open
        if not inside and (len(self.running) >= MOST_NESTED or not self.can_write):
            return False
        at_eta = at_eta or message.kind == "task"
        if at_eta and message.due > self.now:
            self.advance((message.due - self.now) / 1e6)
        attempt = attempt_of({ATTEMPT_HEADER: message.attempt})
        frame = Frame(message.key, message.id, attempt, at_eta)
        waiting, self.hooks = self.hooks, [lambda m=m: self.meanwhile([m], frame) for m in hooks]  # type: ignore[misc]
        self.running.append(frame)
        try:
            if message.kind == "task":
                self._run_task(message, frame)
            else:
                outcome = self.confect.gate.run(message.id, attempt, message.name, loaded, relay)
                self._check_outcome(message, outcome, waits=relay is not None and relay.waits)
                return isinstance(outcome, Again)
        except ChildDied:
            if child is not None:
                self.happened["died in a shared transaction"] += child.died is None and child.sharing.is_open
                child.died = child.died or frame
                raise
            with self.undisturbed():
                self._child_died(frame)
        except Died:
            self.excuse_loss(frame.key)
            raise
        finally:
            self.hooks = waiting
            self.running = [f for f in self.running if f is not frame]
        return False

    def _check_outcome(self, message: Message, outcome: Any, *, waits: bool) -> None:
        row = self.rows().get(message.key)
        state = row.state if row else None
        self.happened[f"{type(outcome).__name__} {getattr(outcome, 'reason', '')}".strip()] += 1
        if isinstance(outcome, Again):
            truth: tuple[str | None, ...] = (None, *LIVE, *TERMINAL)  # it will be seen when it runs by itself
        elif isinstance(outcome, Dropped):
            truth = {
                "missing": (None,),
                "canceled": ("canceled",),
                "finished": ("success", "failed"),
            }.get(outcome.reason, LIVE)
        else:
            truth = ({Succeeded: "success", Failed: "failed", Postponed: "pending"}[type(outcome)],)
            if waits and isinstance(outcome, Succeeded) and message.kind == "action":
                # The next row's claim records it, or finds what others have made of the row.
                truth = ("inProgress", "canceled", "failed")
        stale = isinstance(outcome, Postponed) and row is not None and row.attempt != message.attempt + 1
        if state not in truth or stale:
            violated(7, f"the gate said {outcome}, the row says {row}")

    def copy_of(self, job: Job, id: str, attempt: int) -> Message:
        """A message as it may still be under way somewhere."""
        kind = "task" if job.kind in ("task", "late") else job.kind
        return Message(id, job.key, self.function(job.kind).name, kind, attempt, 0)

    def _child_died(self, frame: Frame) -> None:
        plan = self.plans[frame.key]
        self.excuse_loss(frame.key)
        if plan.told == "at once" and not self.dies_at_the_claim:
            self.tell(frame.key, frame.id, frame.attempt)
            self.apply_told()
            self.tell(frame.key, frame.id, frame.attempt)  # Celery's own task_failure comes twice sometimes
            self.apply_told()
            self.deaths.append((frame.key, frame.id, frame.attempt))
        else:
            self.deaths.append((frame.key, frame.id, frame.attempt))

    def tell(self, key: int, id: str, attempt: int) -> None:
        """The worker's main process tells how the child ended."""
        job, current = self.model.jobs[key], self._is_of(self.rows().get(key), attempt)
        self.told.append((id, attempt, int(current)))
        if self.plans[key].end == "timeout":
            if current:
                job.excuses.add("TimeLimitExceeded")
            self.reconciler.timed_out(id, attempt, 600.0)
        else:
            if current:
                job.excuses.add("WorkerLost")
                job.told_lost.add(attempt)
                self.told_deaths.add(id)
            tell = self.reconciler.requeued if job.kind == "late" else self.reconciler.worker_lost
            tell(id, attempt, "signal 9")

    def give_back(self, key: int, id: str, attempt: int, *, alone: bool = True) -> None:
        """The worker's main process tells that nobody has begun with a message of a batch."""
        self.told.append((id, attempt, int(self._is_of(self.rows().get(key), attempt))))
        self.told_given_back.add(id)
        self.reconciler.not_begun([(id, attempt)], alone=alone)

    def tell_of(self, what: str, number: int) -> None:
        """Other things that a main process tells."""
        if what == "death" and self.deaths:
            self.tell(*self.deaths[number % len(self.deaths)])  # maybe for the second time
        elif what == "revoked" and (row := self.row(number)):
            self.model.jobs[row.key].may_be_canceled = True
            self.told.append((row.id, -1, 1))
            self.reconciler.revoked([row.id])
        elif what == "unknown" and self.broker.messages:
            message = self.broker.messages.pop(number % len(self.broker.messages))
            current = self._is_of(self.rows().get(message.key), message.attempt)
            if current:
                self.model.jobs[message.key].excuses.add("UnknownFunction")
            self.told.append((message.id, message.attempt, int(current)))
            self.reconciler.unknown(message.id, message.attempt, message.name)

    def _is_of(self, row: Row | None, attempt: int) -> bool:
        """Whether the row still waits for, or runs, the message of this attempt."""
        return row is not None and (
            (row.state == "pending" and row.attempt == attempt)
            or (row.state == "inProgress" and row.attempt == attempt + 1)
        )

    def apply_told(self) -> None:
        """The reconciler writes what it was told: nothing that is about an older attempt."""
        before, told, deaths, given_back = self.rows(), self.told, self.told_deaths, self.told_given_back
        self.reconciler.apply_told()
        self.told, self.told_deaths, self.told_given_back = [], set(), set()
        if not self.peace:
            return  # while it tried again time went on, and leases ran out
        for key, row in self.rows().items():
            if row != before[key] and not any(id == row.id and current for id, _, current in told):
                violated(7, f"told {told}: {before[key]} -> {row}")
            if row == before[key] or row.state != "pending" or row.id in given_back:
                continue
            if row.attempt <= before[key].attempt:
                violated(7, f"it starts anew at no new attempt: {before[key]} -> {row}")
            if row.id in deaths and row.losses <= before[key].losses:
                violated(7, f"its worker's death was not counted: {before[key]} -> {row}")

    # -- what runs

    def _begin(self, key: int) -> tuple[Job, Plan, Frame]:
        frame = self.running[-1]
        assert frame.key == key
        self.look()
        job, plan = self.model.jobs[key], self.plans[key]
        beside = any(other.key == key and other.began for other in self.running)
        self.model.started(job, frame.attempt, self.now, frame.at_eta, beside)
        self.happened[f"{job.kind} started"] += 1
        frame.began = True
        self.meanwhile(plan.first, frame)
        return job, plan, frame

    def _end(self, job: Job, plan: Plan) -> None:
        bad = self.bad_ends.get(job.key, 0)
        self.bad_ends[job.key] = bad + 1
        if plan.end == "raises":
            raise Declared
        if bad < plan.times:
            if plan.end in ("dies", "timeout"):
                raise ChildDied
            if plan.end == "retries" and job.kind in ("task", "late"):
                raise Retry
        if plan.end == "flaky" and job.kind == "mutation" and bad < plan.times * 11:
            raise self.hiccup()
        job.finished += 1

    def mutation_body(self, key: int, db: DatabaseWriter, scheduler: Scheduler, run_mutation: MutationRunner) -> None:
        job, plan, frame = self._begin(key)
        try:
            db.table("ledger").insert({"job": key})
            for seconds in plan.children:
                self.schedule_child(scheduler, seconds)
            if plan.nested == "commits":
                run_mutation(self.part, Key(key=1))
            elif plan.nested == "fails":
                before = len(self.frames[-1])
                with suppress(Undone):
                    run_mutation(self.part, Key(key=0))
                del self.frames[-1][before:]
            if plan.cancels is not None:
                self._cancels(plan.cancels, db, scheduler, frame)
            if plan.end == "greedy":
                scheduler.run_many([(Duration.hours(1), self.function("action"), {"key": -1})] * 1001)
            if plan.end == "cancels itself":
                scheduler.cancel(frame.id)
            self.meanwhile([m for m in plan.last if m.what in WITHOUT_LOCKS], frame)
            self._end(job, plan)
        finally:
            frame.began = False

    def _cancels(self, number: int, db: DatabaseWriter, scheduler: Scheduler, frame: Frame) -> None:
        self.locks_rows = self.frames[-1]
        visible = self.rows(db._connection).values()
        rows = [row for row in visible if row.key in self.model.jobs and row.key not in {f.key for f in self.running}]
        if rows:
            row = rows[number % len(rows)]
            self.frames[-1].append(self.is_canceled(row))
            self._said(5, "cancel", scheduler.cancel(row.id), row.state in LIVE, row)

    def action_body(self, key: int, scheduler: Scheduler | None) -> None:
        job, plan, frame = self._begin(key)
        for seconds in plan.children if scheduler else ():
            with suppress(DBAPIError):
                self.schedule_child(scheduler, seconds, parent=job)
        self.meanwhile(plan.last, frame)
        for seconds in plan.children[:1] if scheduler else ():
            with suppress(DBAPIError):
                self.schedule_child(scheduler, seconds, parent=job)
        self._end(job, plan)

    def schedule_child(self, scheduler: Any, seconds: float, parent: Job | None = None) -> None:
        """A running function schedules another; of a cancelled action's nothing may ever start."""
        job = self.job_in("mutation" if seconds < 5 else "action", seconds, Plan())
        call = (self.until(job), self.function(job.kind), {"key": job.key})
        if parent is None:
            self.frames[-1].append(self.exists(job))
            scheduler.run_after(*call)
            return
        row = self.rows().get(parent.key)
        job.canceled = row is not None and row.state == "canceled"
        with self.intending(self.exists(job)):
            scheduler.run_after(*call)

    def _run_task(self, message: Message, frame: Frame) -> None:
        # As runtime/plain.py does it around Celery's own steps; a retry goes through the real capture.
        database, rows, id = self.store.database, self.store.rows, message.id
        lease = self.clock.now() + self.settings.redelivery
        alone = Claims(self.store, self.clock, self.settings)
        if alone.start_due(id, frame.attempt, message.name) is None and not database.retrying(
            lambda t: rows.start(t.connection, id, frame.attempt, lease), single=True
        ):
            return
        if self.dies_at_the_claim:
            raise ChildDied
        claimed = frame.attempt + 1
        try:
            self.action_body(message.key, None)
        except Declared as error:
            told = failure.describe(error, (Declared,))
            self._ended(
                frame,
                lambda: database.retrying(
                    lambda t: rows.fail_running(t.connection, id, claimed, self.clock.now(), told), single=True
                ),
            )
        except Retry:
            # As Task.retry publishes itself anew.
            own = self._ended(
                frame,
                lambda: self.confect.app.send_task(
                    message.name,
                    kwargs={"key": message.key},
                    task_id=id,
                    countdown=self.plans[message.key].countdown,
                    retries=1,
                    headers={ATTEMPT_HEADER: frame.attempt},
                ),
            )
            if own:
                self._check_retry(message)
        else:
            self._ended(
                frame,
                lambda: database.retrying(
                    lambda t: rows.succeed_running(t.connection, id, claimed, self.clock.now()), single=True
                ),
            )

    def _check_retry(self, message: Message) -> None:
        if self.rows()[message.key].attempt <= message.attempt + 1:
            violated(7, f"its retry is no new attempt: {self.rows()[message.key]}")
        self._is_due(message.key, self.plans[message.key].countdown)

    def _ended(self, frame: Frame, end: Callable[[], Any]) -> bool:
        """A task ends its row if, and only if, it is still its own; whether it surely did."""
        self.run_hooks()
        before = self.rows().get(frame.key)
        with self.undisturbed():
            end()
        after = self.rows().get(frame.key)
        own = before is not None and before.state == "inProgress" and before.attempt == frame.attempt + 1
        if self.peace and (before != after) != own:
            violated(7, f"the end of attempt {frame.attempt}: {before} -> {after}")
        return own and self.peace

    # -- bystanders

    def meanwhile(self, doings: Sequence[Meanwhile], frame: Frame) -> None:
        """What others do while the frame's function is about to run, or runs; not for ever, or it would never end."""
        job = self.model.jobs.get(frame.key)
        disturbed = job is not None and sum(job.starts.values()) > MOST_DISTURBED
        if any(frame is self.locks_rows for frame in self.frames):
            return  # we are one thread: to wait for what an open transaction has locked is to wait for ever
        for doing in doings:
            if self.can_write and (doing.always or not disturbed):
                self.happened[f"meanwhile {doing.what}"] += 1
                with suppress(DBAPIError), self.undisturbed():
                    self._do(doing, frame)

    def _do(self, doing: Meanwhile, frame: Frame) -> None:
        keys = list(self.rows())
        mine = keys.index(frame.key) if frame.key in keys else None
        match doing.what:
            case "cancel it" if mine is not None:
                self.cancel(mine)
            case "reschedule it" if mine is not None:
                self.reschedule(mine, max(doing.seconds, 1.0))
            case "cancel":
                self.cancel(doing.number)
            case "duplicate":
                job = self.model.jobs.get(frame.key)
                if job is not None:
                    self.deliver(self.copy_of(job, frame.id, frame.attempt))
            case "work":
                row = self.rows().get(frame.key)
                if row is not None and row.state == "pending" and doing.seconds * 1e6 >= self.redelivery:
                    self.excuse_loss(frame.key)  # its claim waits for longer than the lease that it asks for
                self.advance(doing.seconds)
            case "stall":
                self.excuse_loss(frame.key)
                frame.stalled = True
                self.advance(doing.seconds)
                frame.stalled = False
            case "deliver" if self.broker.messages:
                self.deliver(self.broker.messages.pop(doing.number % len(self.broker.messages)))
            case "dispatch":
                self.dispatch()
                self.publish()
            case "taken over":
                self._taken_over(frame)
            case "revoke it" if mine is not None:
                self.tell_of("revoked", mine)
                self.apply_told()
            case "tell":
                self.tell_of("death", doing.number)
                self.apply_told()
            case "sweep":
                self.apply_told()
                self.other.sweep()

    def _taken_over(self, frame: Frame) -> None:
        """The runner is thought dead, and another one claims its row, which itself dies or is still about to run."""
        self._do(Meanwhile("stall", seconds=31.0), frame)
        row, job = self.rows().get(frame.key), self.model.jobs.get(frame.key)
        if row is None or job is None or job.time > self.now:
            return  # it was moved meanwhile: of a time that has not come Celery delivers no message
        if row.state == "pending" and job.kind in ("task", "late"):
            self.dies_at_the_claim = True
            try:
                self.deliver(self.copy_of(job, row.id, row.attempt))
            finally:
                self.dies_at_the_claim = False

    # -- the end

    def quiesce(self) -> None:
        """Everything restarts, nothing more goes wrong: every job must come to its end."""
        self.crash()
        for death in self.deaths:
            if self.plans[death[0]].told == "later":
                self.tell(*death)
        for _ in range(100 + 10 * len(self.model.jobs)):
            rows = self.look()
            if not any(row.state in LIVE for row in rows.values()):
                break
            self.apply_told()
            self.other.sweep()
            self.dispatch()
            self.publish()
            messages, self.broker.messages = self.broker.messages, []
            for message in messages:
                self.deliver(message)
            alive = [row.next_at for row in self.rows().values() if row.next_at is not None]
            waiting = [due for due, _, _ in self.outbox._exact]
            if not self.broker.messages and alive:
                self.advance(max(min(alive + waiting) - self.now, 0) / 1e6)
        else:
            violated(2, f"after everything was delivered and swept there still are {rows}")
        for job in list(self.model.jobs.values()):  # what is still under way somewhere starts nothing any more
            if job.last is not None:
                for attempt in range(job.last.attempt + 2):
                    self.deliver(self.copy_of(job, job.last.id, attempt))
        self.look()
