"""What a job will do when it runs, and what will happen around it: drawn by Hypothesis, kept outside the database."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

SECONDS = [1.0, 1.0, 1.5, 2.0, 2.0, 2.5, 10.0, 60.0, 3600.0, 366 * 86400.0]


@dataclass(frozen=True)
class Fault:
    """The `nth` commit or publish of an operation goes wrong, before or after it took effect."""

    where: str
    nth: int
    when: str
    how: str


@dataclass(frozen=True)
class Meanwhile:
    """Something that others do while a function is about to run, or runs."""

    what: str
    number: int = 0
    seconds: float = 0.0
    always: bool = False
    """However often the function was disturbed before."""


@dataclass(frozen=True)
class Plan:
    """What a function does, in this order."""

    first: tuple[Meanwhile, ...] = ()
    children: tuple[float, ...] = ()
    nested: str | None = None
    cancels: int | None = None
    last: tuple[Meanwhile, ...] = ()
    end: str = "ok"
    countdown: float = 1.0
    """Of a task's retry."""
    times: int = 1
    """How often it ends so before it ends well; a `raises` always does."""
    told: str = "never"
    """When the worker's main process tells of a death."""


NO_FAULT = st.none()
DEATHS = st.builds(
    Fault,
    where=st.sampled_from(["commit", "commit", "publish", "publish", "enter", "end"]),
    nth=st.sampled_from([0, 0, 0, 1, 1, 2, 3]),
    when=st.sampled_from(["before", "after"]),
    how=st.just("die"),
)
TROUBLES = st.builds(
    Fault,
    where=st.sampled_from(["commit", "commit", "commit", "enter", "end"]),
    nth=st.sampled_from([0, 0, 0, 1, 1, 2]),
    when=st.sampled_from(["before", "after"]),
    how=st.sampled_from(["transient", "transient", "transient for long"]),
) | st.builds(
    Fault,
    where=st.just("publish"),
    nth=st.integers(0, 2),
    when=st.sampled_from(["before", "after"]),
    how=st.just("refuse"),
)
FAULTS: st.SearchStrategy[Fault | None] = st.one_of(NO_FAULT, DEATHS, TROUBLES)

NUMBERS = st.integers(0, 9)
MEANWHILE = st.builds(
    Meanwhile,
    what=st.sampled_from(
        [
            "cancel it",
            "cancel it",
            "duplicate",
            "duplicate",
            "reschedule it",
            "work",
            "stall",
            "deliver",
            "dispatch",
            "cancel",
            "revoke it",
            "sweep",
            "taken over",
            "taken over",
            "tell",
        ]
    ),
    number=NUMBERS,
    seconds=st.sampled_from([0.5, 1.0, 5.0, 31.0, 70.0]),
)
FEW = st.lists(MEANWHILE, min_size=1, max_size=2).map(tuple)
SOME = st.one_of(st.just(()), FEW)
PLAIN = st.just(Plan())
BUSY = st.builds(
    Plan,
    first=SOME,
    children=st.lists(st.sampled_from(SECONDS), max_size=2).map(tuple),
    nested=st.sampled_from([None, None, None, "commits", "fails"]),
    cancels=st.one_of(st.none(), st.none(), NUMBERS),
    last=SOME,
    end=st.sampled_from(
        ["ok", "ok", "ok", "raises", "dies", "timeout", "greedy", "cancels itself", "flaky", "retries"]
    ),
    countdown=st.sampled_from([0.0, 1.0, 10.0]),
    times=st.integers(1, 4),
    told=st.sampled_from(["at once", "later", "never"]),
)
PLANS: st.SearchStrategy[Plan] = st.one_of(PLAIN, BUSY, BUSY)


@dataclass(frozen=True)
class Step:
    """One thing done inside a transaction of the caller's."""

    what: str
    kind: str = "mutation"
    seconds: float = 1.0
    number: int = 0
    plan: Plan = Plan()
    inside: Any = ()


ALL_KINDS = ("mutation", "action", "task", "late")
KINDS = st.sampled_from(["mutation", "mutation", "action", "action", "task", "late"])
STEP = st.builds(
    Step,
    what=st.sampled_from(["schedule", "schedule", "cancel", "reschedule"]),
    kind=KINDS,
    seconds=st.sampled_from(SECONDS),
    number=NUMBERS,
    plan=PLANS,
)
SAVEPOINT = st.builds(
    Step,
    what=st.sampled_from(["savepoint kept", "savepoint undone"]),
    inside=st.lists(STEP, min_size=1, max_size=2).map(tuple),
)
STEPS = st.lists(st.one_of(STEP, STEP, SAVEPOINT), min_size=1, max_size=4)
