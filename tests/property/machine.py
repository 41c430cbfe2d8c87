"""The stateful test: Hypothesis plays caller, broker, operator and fate against the real code."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from confect_celery import DelayOutOfRange, Duration
from tests.property.actors import Play
from tests.property.incidents import INCIDENTS, Incident
from tests.property.model import Violation, violated
from tests.property.plans import (
    BUSY,
    DEATHS,
    FAULTS,
    KINDS,
    MEANWHILE,
    NUMBERS,
    PLANS,
    SECONDS,
    STEPS,
    TROUBLES,
    Fault,
    Meanwhile,
    Plan,
    Step,
)

HOW = st.sampled_from(
    ["run_after", "run_after", "run_at", "run_at the past", "run_many", "mutation", "mutation that fails"]
)
HOOKS = st.one_of(st.just(()), st.lists(MEANWHILE, min_size=1, max_size=3).map(tuple))


class Guarantees(RuleBasedStateMachine):
    """One example: a play from its first schedule to the last job's end."""

    def __init__(self, play: Play) -> None:
        super().__init__()
        self.play = play
        play.reset()

    # -- callers

    @rule(how=HOW, kind=KINDS, seconds=st.sampled_from(SECONDS), plan=PLANS, fault=FAULTS)
    def schedule(self, how: str, kind: str, seconds: float, plan: Plan, fault: Fault | None) -> None:
        with self.play.trouble(fault):
            self.play.schedule(how, kind, seconds, plan)

    @rule(kind=KINDS, seconds=st.sampled_from([1.0, 2.0, 10.0]), plan=BUSY, hooks=HOOKS, times=st.integers(1, 2))
    def story(self, kind: str, seconds: float, plan: Plan, hooks: tuple[Meanwhile, ...], times: int) -> None:
        self.play.schedule("run_after", kind, seconds, plan)
        self.play.go_on(hooks, times)
        self.play.go_on(hooks, times)

    @rule(kind=KINDS, seconds=st.sampled_from([1.0, 2.0, 10.0]), plan=BUSY, hooks=HOOKS, fault=DEATHS | TROUBLES)
    def sad_story(
        self, kind: str, seconds: float, plan: Plan, hooks: tuple[Meanwhile, ...], fault: Fault | None
    ) -> None:
        self.play.schedule("run_after", kind, seconds, plan)
        with self.play.trouble(fault):
            self.play.go_on(hooks)
        self.play.go_on()

    @rule(incident=st.sampled_from(INCIDENTS))
    def incident(self, incident: Incident) -> None:
        incident(self.play)

    @rule(kind=KINDS, seconds=st.sampled_from([0.0, 0.999999, -1.0, 6 * 366 * 86400.0]))
    def schedule_out_of_range(self, kind: str, seconds: float) -> None:
        try:
            self.play.confect.scheduler.run_after(Duration.seconds(seconds), self.play.function(kind), {"key": -2})
        except DelayOutOfRange:
            return
        violated(1, f"a delay of {seconds} s was taken")

    @rule(
        bind=st.sampled_from(["session", "connection"]),
        steps=STEPS,
        end=st.sampled_from(["commit", "commit", "roll back"]),
        fault=FAULTS,
    )
    def joined_transaction(self, bind: str, steps: list[Step], end: str, fault: Fault | None) -> None:
        with self.play.trouble(fault):
            self.play.joined(bind, steps, end)

    @rule(number=NUMBERS, how=st.sampled_from(["cancel", "cancel", "delete"]), fault=FAULTS)
    def cancel(self, number: int, how: str, fault: Fault | None) -> None:
        with self.play.trouble(fault):
            self.play.cancel(number, how)

    @rule(number=NUMBERS, seconds=st.sampled_from(SECONDS), fault=FAULTS)
    def reschedule(self, number: int, seconds: float, fault: Fault | None) -> None:
        with self.play.trouble(fault):
            self.play.reschedule(number, seconds)

    # -- time

    @rule(seconds=st.sampled_from([0.3, 1.0, 1.0, 2.0, 5.0, 31.0, 70.0, 400.0, 4000.0]))
    def time_passes(self, seconds: float) -> None:
        self.play.advance(seconds)

    @rule(hooks=HOOKS, times=st.integers(1, 2), fault=FAULTS)
    def go_on(self, hooks: tuple[Meanwhile, ...], times: int, fault: Fault | None) -> None:
        with self.play.trouble(fault):
            self.play.go_on(hooks, times)

    @rule(hooks=HOOKS)
    def go_on_in_peace(self, hooks: tuple[Meanwhile, ...]) -> None:
        self.play.go_on(hooks)

    # -- dispatchers

    @rule(fault=FAULTS)
    def dispatch(self, fault: Fault | None) -> None:
        with self.play.trouble(fault):
            self.play.dispatch()

    @rule(fault=FAULTS)
    def publish(self, fault: Fault | None) -> None:
        with self.play.trouble(fault):
            self.play.publish()

    @rule(fault=FAULTS)
    def dispatch_and_publish(self, fault: Fault | None) -> None:
        with self.play.trouble(fault):
            self.play.dispatch()
            self.play.publish()

    @rule(how=st.sampled_from(["killed", "stopped"]), fault=FAULTS)
    def dispatcher_ends(self, how: str, fault: Fault | None) -> None:
        with self.play.trouble(fault):
            if how == "stopped":
                self.play.stop_dispatcher()
            else:
                self.play.start_dispatcher()

    # -- the broker

    @precondition(lambda self: self.play.broker.messages)
    @rule(number=NUMBERS, copy=st.booleans(), at_eta=st.booleans(), hooks=HOOKS, fault=FAULTS)
    def deliver(self, number: int, copy: bool, at_eta: bool, hooks: tuple[Meanwhile, ...], fault: Fault | None) -> None:
        messages = self.play.broker.messages
        message = messages[number % len(messages)]
        if not copy:
            messages.remove(message)
        with self.play.trouble(fault):
            self.play.deliver(replace(message), at_eta=at_eta, hooks=hooks)

    @precondition(lambda self: len(self.play.broker.messages) > 1)
    @rule(count=st.integers(2, 4), between=HOOKS, fault=FAULTS, shares=st.booleans())
    def deliver_together(
        self, count: int, between: tuple[Meanwhile, ...], fault: Fault | None, *, shares: bool
    ) -> None:
        messages = self.play.broker.messages
        together, messages[:count] = messages[:count], []
        with self.play.trouble(fault):
            self.play.deliver_together(together, between, shares=shares)

    @rule(kinds=st.lists(st.sampled_from(["mutation", "action", "action"]), min_size=2, max_size=4), plan=BUSY,
          between=HOOKS, fault=FAULTS)  # fmt: skip
    def batch(self, kinds: list[str], plan: Plan, between: tuple[Meanwhile, ...], fault: Fault | None) -> None:
        self.play.schedule_batch(kinds, plan)
        together, self.play.broker.messages = self.play.broker.messages, []
        with self.play.trouble(fault):
            self.play.deliver_together(together, between)

    @rule(plans=st.lists(PLANS, min_size=2, max_size=4), between=HOOKS, fault=FAULTS)
    def shared_transaction(self, plans: list[Plan], between: tuple[Meanwhile, ...], fault: Fault | None) -> None:
        self.play.schedule_batch(["mutation"] * len(plans), *plans)
        together, self.play.broker.messages = self.play.broker.messages, []
        with self.play.trouble(fault):
            self.play.deliver_together(together, between, shares=True)

    @precondition(lambda self: self.play.broker.messages)
    @rule(number=NUMBERS, everything=st.booleans())
    def lose(self, number: int, everything: bool) -> None:
        messages = self.play.broker.messages
        if everything:
            messages.clear()
        else:
            messages.pop(number % len(messages))

    # -- workers

    @rule(what=st.sampled_from(["death", "death", "revoked", "unknown"]), number=NUMBERS)
    def tell(self, what: str, number: int) -> None:
        self.play.tell_of(what, number)

    @rule(fault=FAULTS)
    def apply_told(self, fault: Fault | None) -> None:
        with self.play.trouble(fault):
            self.play.apply_told()

    @rule()
    def worker_ends(self) -> None:
        self.play.start_worker()

    @rule(fault=FAULTS)
    def sweep(self, fault: Fault | None) -> None:
        with self.play.trouble(fault):
            self.play.other.sweep()

    @rule(fault=FAULTS)
    def prune(self, fault: Fault | None) -> None:
        with self.play.trouble(fault):
            self.play.other.prune()

    # -- what must be true

    @invariant()
    def the_guarantees_hold(self) -> None:
        self.play.steps += 1
        self.play.look()

    def teardown(self) -> None:
        if Violation.raised is None:
            self.play.quiesce()
