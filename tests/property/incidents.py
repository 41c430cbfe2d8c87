"""Short stories that chance brings too rarely, each a function of the play: `drill` plays each of them once.

Hypothesis mixes them with all the rest.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from tests.property.actors import Play
from tests.property.plans import ALL_KINDS, Fault, Meanwhile, Plan
from tests.property.world import Message

Incident = Callable[[Play], None]

ENDS = {
    "mutation": ("raises", "ok", "flaky", "dies"),
    "action": ("raises", "ok", "dies"),
    "task": ("raises", "ok", "retries", "dies"),
    "late": ("raises", "ok", "retries", "dies"),
}
POSTPONING = 19
"""Ten tries and nine waits between them: then comes the transaction that postpones a mutation."""


def contest(play: Play, kind: str, doing: str, when: str | int, end: str) -> None:
    """One thing happens to a job while it runs, or right before the nth transaction of its run."""
    it = Meanwhile(doing, seconds={"stall": 31.0, "work": 70.0}.get(doing, 5.0))
    first = (it,) if when == "first" else ()
    last = (it,) if when == "last" else ()
    hooks = (Meanwhile("nothing"),) * when + (replace(it, always=True),) if isinstance(when, int) else ()
    times = 4 if when == 0 else 2
    plan = Plan(first=first, last=last, end=end, countdown=10.0, times=times, told="at once")
    play.schedule("run_after", kind, 1.0, plan)
    play.go_on(hooks)
    play.go_on()


def held(play: Play, kind: str, doing: str, end: str) -> None:
    """Something happens to a job while a dispatcher holds it, which then stops or meets a refusal."""
    play.schedule("run_after", kind, 10.0, Plan())
    key = play.keys
    play.advance(8.5)
    play.dispatch()
    if key in (keys := list(play.rows())):
        if doing == "cancel":
            play.cancel(keys.index(key))
        elif doing != "nothing":
            play.reschedule(keys.index(key), 5.0 if doing == "reschedule" else 1.0)
    if end == "stops":
        play.stop_dispatcher()
    else:
        play.advance(2.0)
        with play.trouble(Fault("publish", 0, "before", "refuse")):
            play.publish()


def moved(play: Play, kind: str, seconds: float, to: float) -> None:
    """A job is moved to another time before anybody has seen it."""
    play.schedule("run_after", kind, seconds, Plan())
    play.reschedule(len(play.rows()) - 1, to)
    play.go_on()


def late_message(play: Play, kind: str) -> None:
    """The message comes when it counts as lost already, and others sweep while the function runs."""
    play.schedule("run_after", kind, 10.0, Plan(first=(Meanwhile("sweep"),)))
    play.advance(9.0)
    play.dispatch()
    play.advance(60.0)
    play.publish()
    play.deliver_all()


def lost_message(play: Play, kind: str) -> None:
    """A dispatcher looks right before the message counts as lost, and right after."""
    play.schedule("run_after", kind, 10.0, Plan())
    play.advance(9.0)
    play.dispatch()
    play.publish()
    play.broker.messages.clear()
    for seconds in (30.9, 0.2, 2.0):
        play.advance(seconds)
        play.dispatch()
        play.publish()


def death(play: Play, kind: str, nth: int, when: str) -> None:
    """The host of a run dies at one of its commits."""
    play.schedule("run_after", kind, 1.0, Plan())
    with play.trouble(Fault("commit", nth, when, "die")):
        play.deliver_all()


def told_too_late(play: Play, kind: str, end: str) -> None:
    """What was told of a message's end comes when its row has ended, in whatever way."""
    play.schedule("run_after", kind, 1.0, Plan(end=end))
    key = play.keys
    row = play.rows().get(key)
    if end == "canceled" and row is not None:
        play.cancel(list(play.rows()).index(key))
    else:
        play.deliver_all()
    if row is not None:
        for attempt in (row.attempt - 1, row.attempt, row.attempt + 1):
            play.tell(key, row.id, attempt)
            play.apply_told()
            play.give_back(key, row.id, attempt)
            play.apply_told()


def given_back(play: Play, kind: str, alone: bool) -> None:
    """A batch ended before its child came to this message; it had been moved meanwhile, or not."""
    for moved_to in (None, 5.0):
        play.schedule("run_after", kind, 1.0, Plan())
        key = play.keys
        row = play.rows().get(key)
        if row is not None:
            if moved_to is not None:
                play.reschedule(list(play.rows()).index(key), moved_to)
            play.give_back(key, row.id, row.attempt, alone=alone)
            play.apply_told()
    play.go_on()


def in_doubt(play: Play, how: str, kind: str, when: str, fault: str) -> None:
    """A caller's commit fails, or its answer is lost."""
    with play.trouble(Fault("commit", 0, when, fault)):
        play.schedule(how, kind, 1.0, Plan())


def cancel_in_doubt(play: Play, kind: str, when: str, fault: str) -> None:
    """A cancel's commit fails, or its answer is lost."""
    play.schedule("run_after", kind, 10.0, Plan())
    with play.trouble(Fault("commit", 0, when, fault)):
        play.cancel(len(play.rows()) - 1)


def sharing(
    play: Play, ends: tuple[str, ...], doing: str = "nothing", last: str | None = None, fault: Fault | None = None
) -> None:
    """Mutations that share a transaction, and what may go wrong with it, or be done to its rows meanwhile."""
    plans = [
        Plan(end=end, told="at once", children=(1.0,) * (end != "greedy"), nested="commits" if at == 1 else None)
        for at, end in enumerate(ends)
    ]
    play.schedule_batch(("mutation",) * len(ends), *plans)
    messages, play.broker.messages = play.broker.messages, []
    with play.trouble(fault):
        between = [*[doing] * (len(ends) - 1), last or doing]
        play.deliver_together(messages, [Meanwhile(each, seconds=5.0) for each in between], shares=True)
    play.look()
    play.go_on()


def cancels_in_it(play: Play, number: int) -> None:
    """One of them cancels a row, maybe one that comes after it."""
    play.schedule_batch(("mutation",) * 3, Plan(), Plan(cancels=number), Plan())
    messages, play.broker.messages = play.broker.messages, []
    play.deliver_together(messages, shares=True)


def together(play: Play, kinds: tuple[str, ...], doing: str, end: str, died: int | None = None) -> None:
    """Something happens to the rows of a batch that were read and have not begun; or the host dies at a commit."""
    play.schedule_batch(kinds, Plan(end=end, told="at once"), Plan())
    messages, play.broker.messages = play.broker.messages, []
    with play.trouble(None if died is None else Fault("commit", died, "before", "die")):
        play.deliver_together(messages, [Meanwhile(doing, seconds=5.0)] * len(kinds))
    play.look()
    play.go_on()


def beside_a_stale_one(play: Play, kind: str) -> None:
    """The message that came with it is of an attempt that is no more."""
    play.schedule_batch(("action", kind), Plan())
    messages, play.broker.messages = play.broker.messages, []
    play.reschedule(len(play.rows()) - 1, 1.0)
    play.deliver_together(messages)
    play.go_on()


def beside_a_forged_one(play: Play) -> None:
    """The message that came with it bears another function's name: it starts nothing, and claims nothing."""
    play.schedule_batch(("action", "action"), Plan())
    messages, play.broker.messages = play.broker.messages, []
    if len(messages) == 2:  # else the database was in trouble
        messages[1] = replace(messages[1], name=play.function("mutation").name)
    play.deliver_together(messages)
    play.go_on()


def forged(play: Play, kind: str) -> None:
    """Somebody who knows ids sends messages long before their time, and such as bear another function's name."""
    play.schedule("run_after", "mutation", 60.0, Plan())
    play.schedule("run_after", kind, 60.0, Plan())
    of = [row for row in play.rows().values() if row.state == "pending"][-2:]
    for seconds in (0.0, 60.0):
        play.advance(seconds)
        for row in of:
            for named in sorted(("mutation", "action"), key=lambda each, kind=row.kind: each == kind):
                name = play.function(named).name
                play.deliver(Message(row.id, row.key, name, row.kind, row.attempt, row.scheduled), at_eta=False)
    play.go_on()


def ends_so(play: Play, end: str, nested: str | None) -> None:
    """A mutation that asks for what it may not have, or whose part fails."""
    play.schedule("run_after", "mutation", 1.0, Plan(end=end, nested=nested, children=(1.0, 10.0)))
    play.go_on()


INCIDENTS: list[Incident] = [
    *(partial(ends_so, end=end, nested=nested) for end in ("ok", "raises") for nested in ("fails", "commits")),
    *(partial(ends_so, end=end, nested=None) for end in ("greedy", "cancels itself")),
    *(
        partial(held, kind=kind, doing=doing, end=end)
        for doing in ("reschedule", "reschedule soon", "cancel", "nothing")
        for end in ("stops", "is refused")
        for kind in ("mutation", "action")
    ),
    *(partial(moved, kind=kind, seconds=10.0, to=to) for kind in ("mutation", "task") for to in (1.0, 5.0, 60.0)),
    *(partial(late_message, kind=kind) for kind in ALL_KINDS),
    *(partial(lost_message, kind=kind) for kind in ALL_KINDS),
    *(partial(told_too_late, kind=kind, end=end) for kind in ALL_KINDS for end in ("ok", "canceled", "raises")),
    *(partial(given_back, kind=kind, alone=alone) for kind in ("mutation", "action") for alone in (True, False)),
    *(
        partial(in_doubt, how=how, kind=kind, when=when, fault=fault)
        for how in ("mutation", "run_after", "run_many")
        for kind in ("mutation", "task")
        for when in ("after", "before")
        for fault in ("transient", "die")
    ),
    *(
        partial(together, kinds=kinds, doing=doing, end=end)
        for kinds in (("action",) * 3, ("mutation",) * 3, ("action", "mutation", "action"))
        for doing in ("nothing", "cancel it", "reschedule it", "duplicate", "taken over")
        for end in ("ok", "raises", "dies")
    ),
    *(
        partial(sharing, ends=ends, doing=doing)
        for ends in (("ok", "ok", "ok"), ("ok", "raises", "ok"), ("ok", "dies", "ok"), ("ok", "flaky", "ok"))
        for doing in ("nothing", "cancel it", "reschedule it", "duplicate", "taken over")
    ),
    *(
        partial(sharing, ends=("ok", "raises", "ok"), fault=Fault(where, nth, when, how))
        for where, most in (("commit", 1), ("enter", 3), ("end", 1), ("publish", 1))
        for nth in range(most)
        for when in ("before", "after")
        for how in ("die", "transient")
    ),
    *(partial(sharing, ends=("ok", "ok", "ok"), last=last) for last in ("cancel it", "reschedule it", "duplicate")),
    *(partial(cancels_in_it, number=number) for number in range(4)),
    *(partial(beside_a_stale_one, kind=kind) for kind in ("mutation", "action")),
    beside_a_forged_one,
    *(partial(forged, kind=kind) for kind in ("mutation", "action")),
    *(partial(together, kinds=("action",) * 3, doing="nothing", end="ok", died=nth) for nth in range(4)),
    *(
        partial(cancel_in_doubt, kind=kind, when=when, fault=fault)
        for kind in ("mutation", "action")
        for when in ("after", "before")
        for fault in ("transient", "die")
    ),
    *(
        partial(death, kind=kind, nth=nth, when=when)
        for kind in ALL_KINDS
        for nth in range(3)
        for when in ("before", "after")
    ),
    *(
        partial(contest, kind=kind, doing=doing, when=when, end=end)
        for when in (0, 1, 2, POSTPONING, "last", "first")
        for doing in ("reschedule it", "cancel it", "taken over", "duplicate", "stall", "work", "revoke it")
        for kind, ends in ENDS.items()
        for end in ends
        if when != POSTPONING or end == "flaky"
    ),
]


def drill(play: Play) -> None:
    """Each once, whatever chance would have brought."""
    random.seed(0)  # how long the package waits between its tries
    for start in range(0, len(INCIDENTS), 8):
        play.reset()
        for incident in INCIDENTS[start : start + 8]:
            incident(play)
            play.look()
        play.quiesce()
