"""Stories of rows that a child holds, where the database can do so: `drill` plays each of them once.

What the database forgets in a crash is put back as it was by hand: everything that was committed by statements which
wait for no disk, since the last that did.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import Any
from unittest import mock

import sqlalchemy as sa

from confect_celery.runtime.relay import Relay
from confect_celery.store import HELD_FOR, Pending
from tests.property.actors import Play
from tests.property.model import violated
from tests.property.plans import Plan
from tests.property.world import Message

Story = Callable[[Play], None]

DIES = Plan(end="dies", told="never")
TOO_LONG = HELD_FOR.total_seconds() + 1


class Holder:
    """A child that got some actions in a batch, has read their rows, and holds them."""

    def __init__(self, play: Play, messages: Sequence[Message], meanwhile: Callable[[], None] = lambda: None) -> None:
        """`meanwhile`: after the rows were read, before they are held."""
        self.play, self.messages, self.more = play, messages, True
        self.relay = Relay(play.store, play.clock, play.settings, lambda: self.more)
        ids = [message.id for message in self.messages]
        found = play.store.database.reading(lambda c: play.store.rows.load_many(c, ids))
        meanwhile()
        self.held: dict[str, Pending] = {row.id: row for row in self.relay.hold([found[id] for id in ids])}
        play.look()

    def run(self, *places: int, last: bool = False) -> None:
        """The turn of these comes; after the `last` no claim follows."""
        for at in places:
            message, row = self.messages[at], self.held.get(self.messages[at].id)
            self.more = not (last and at == places[-1])
            if row is not None:
                self.play.deliver(replace(message, attempt=row.attempt), loaded=row, relay=self.relay)
                self.relay.flush(but=row.id)
        if last:
            self.relay.flush()
            self.relay.release()


def three(play: Play, *plans: Plan) -> list[Message]:
    """The messages of so many actions, at their time."""
    play.schedule_batch(("action",) * 3, *(plans or (Plan(),)))
    messages, play.broker.messages = play.broker.messages, []
    play.advance(1.0)
    return messages


def number(play: Play, message: Message) -> int:
    """The row's place among all."""
    return list(play.rows()).index(message.key)


def given_up(play: Play) -> None:
    """All that is held is held for too long; dispatchers take what they may, until nothing is held any more."""
    while any(row.deliveries < 0 and row.state == "pending" for row in play.rows().values()):
        play.advance(TOO_LONG)
        play.outbox.put(play.dispatcher.claim())
    play.publish()


def arrive(play: Play) -> None:
    """What dispatchers have sent comes to some worker."""
    play.look()
    messages, play.broker.messages = play.broker.messages, []
    for message in messages:
        play.deliver(message)


@contextmanager
def crash(play: Play) -> Iterator[None]:
    """The database crashes after the block, and forgets what was done in it."""
    c = play.store.table.c
    kept = [c.id, c.state, c.error, c.completed_time, c.next_at, c.attempt, c.deliveries]
    with play.store.database.engine.connect() as connection:
        before = connection.execute(sa.select(*kept)).mappings().all()
    yield
    with play.store.database.engine.begin() as connection:
        for row in before:
            connection.execute(sa.update(play.store.table).where(c.id == row["id"]).values(dict(row)))
    for key, row in play.rows().items():
        play.model.jobs[key].last = row
    play.store.database.troubles += 1
    failed = play.clock.now()
    play.store.database.dialect.kept_all_since = lambda _: failed  # type: ignore[method-assign]


# -- the stories


def all_is_well(play: Play) -> None:
    holder = Holder(play, three(play))
    holder.run(0, 1, 2, last=True)
    if any(row.state != "success" for row in play.rows().values()):
        violated(2, f"what was held did not run: {play.rows()}")


def canceled_before_it_is_held(play: Play) -> None:
    messages = three(play)
    holder = Holder(play, messages, lambda: play.cancel(number(play, messages[1])))
    holder.run(0, 1, 2, last=True)


def moved_before_it_is_held(play: Play) -> None:
    messages = three(play)
    holder = Holder(play, messages, lambda: play.reschedule(number(play, messages[1]), 500.0))
    row = play.rows()[holder.messages[1].key]
    if row.next_at != row.scheduled:
        violated(6, f"it was moved, but is due at another time: {row}")
    holder.run(0, 1, 2, last=True)


def done_to_one(play: Play, at: int, doing: str) -> None:
    """Somebody cancels or moves one that is held, before its turn comes."""
    holder = Holder(play, three(play))
    holder.run(*range(at))
    row = number(play, holder.messages[at])
    play.cancel(row) if doing == "cancel" else play.reschedule(row, 50.0)
    play.look()
    holder.run(*range(at, 3), last=True)


def moved_and_held_by_another(play: Play, at: int) -> None:
    """It is moved while it is held, and at its new time another child holds it."""
    holder = Holder(play, three(play))
    holder.run(*range(at))
    play.reschedule(number(play, holder.messages[at]), 1.0)
    play.advance(1.0)
    messages, play.broker.messages = play.broker.messages, []
    other = Holder(play, messages)
    holder.run(*range(at, 3), last=True)
    play.look()
    other.run(0, last=True)


def canceled_while_its_end_waits(play: Play) -> None:
    holder = Holder(play, three(play))
    holder.run(0)
    if not holder.relay.waits:
        violated(7, "its end does not wait, and the story proves nothing")
    play.cancel(number(play, holder.messages[0]))
    play.look()
    holder.run(1, 2, last=True)


def canceled_before_it_is_given_back(play: Play) -> None:
    holder = Holder(play, three(play))
    play.cancel(number(play, holder.messages[1]))
    play.look()
    holder.relay.release()


def others_have_it(play: Play, at: int) -> None:
    """It was held too long and others have it; its holder comes late, and the database crashes in the midst of it."""
    holder = Holder(play, three(play, *(DIES if n == at else Plan() for n in range(3))))
    holder.run(*range(at))
    play.look()
    given_up(play)
    play.look()
    for message in holder.messages[:at]:
        play.excuse_loss(message.key)  # whose end its holder has not told yet
    with crash(play):
        holder.run(at)
    arrive(play)


def worker_and_database_are_lost(play: Play, told: bool) -> None:
    """One of them has begun, and only a child that died knew; `told`: its parent knows where it was."""
    holder = Holder(play, three(play, DIES, Plan()))
    for message in holder.messages:
        play.excuse_loss(message.key)
    with crash(play):
        holder.run(0)
    first, *rest = holder.messages
    if told:
        play.reconciler.worker_lost(first.id, first.attempt + 1, "signal 9", held=True)
        play.reconciler.not_begun([], alone=False, held=[(each.id, each.attempt + 1) for each in rest])
        play.reconciler.apply_told()
        play.advance(2.0)
    given_up(play)
    play.outbox.put(play.dispatcher.claim())
    play.publish()
    arrive(play)


def only_the_database_is_lost(play: Play) -> None:
    """Its holder goes on."""
    holder = Holder(play, three(play))
    with crash(play):
        holder.run(0, 1)
    holder.run(2, last=True)
    given_up(play)
    play.outbox.put(play.dispatcher.claim())
    if any(row.state != "success" for row in play.rows().values()):
        violated(2, f"its holder has run it, and was there to tell: {play.rows()}")


STORIES: Sequence[Story] = (
    all_is_well,
    canceled_before_it_is_held,
    moved_before_it_is_held,
    *(partial(done_to_one, at=at, doing=doing) for at in (0, 1) for doing in ("cancel", "reschedule")),
    *(partial(moved_and_held_by_another, at=at) for at in (0, 1)),
    canceled_while_its_end_waits,
    canceled_before_it_is_given_back,
    *(partial(others_have_it, at=at) for at in (0, 1)),
    *(partial(worker_and_database_are_lost, told=told) for told in (True, False)),
    only_the_database_is_lost,
)


def drill(play: Play) -> None:
    """Each once, where rows are held at all."""
    dialect: Any = play.store.database.dialect
    if not dialect.holds:
        return
    brief = SimpleNamespace(monotonic=lambda: 0.0)  # a busy machine makes nothing long
    for story in STORIES:
        play.reset()
        with mock.patch("confect_celery.runtime.relay.time", brief):
            try:
                story(play)
                given_up(play)
                play.look()
                play.quiesce()
            finally:
                vars(dialect).pop("kept_all_since", None)
