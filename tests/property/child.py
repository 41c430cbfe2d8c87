"""A pool's child that runs the messages of a batch, as `BatchRun` does it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from sqlalchemy.exc import DBAPIError

from confect_celery.runtime.brevity import Brevity
from confect_celery.runtime.relay import Relay
from confect_celery.runtime.sharing import Sharing
from confect_celery.store import Pending
from tests.property.model import Row
from tests.property.plans import Meanwhile
from tests.property.world import ChildDied, Frame, Message

if TYPE_CHECKING:
    from tests.property.actors import Play

_BRIEF_RUNS = 3


class Child:
    """All rows are read first, and each is run by what was read then, whatever others do to it `between`.

    What they do comes before each but the first, and the last of it right before a shared transaction ends. Where they
    do anything, rows are not locked together, as if others were changing them: all are one thread, and would wait for
    ever. Where nobody else can write while a transaction is open it comes before all of them.
    """

    def __init__(self, play: Play, messages: Sequence[Message], between: Sequence[Meanwhile], *, shares: bool) -> None:
        self.play = play
        self.messages = messages
        self.between = between
        self.shares = shares
        self.next = 0
        self.again: list[int] = []
        self.died: Frame | None = None
        database, rows = play.store.database, play.store.rows
        self.found = database.reading(lambda c: rows.load_many(c, [m.id for m in messages]), tries=10)
        self.sharing = Sharing(play.store, play.clock, play.settings, self._following, self._step)
        self.relay = Relay(play.store, play.clock, play.settings, self._next_claims, self.sharing)
        self.waited: list[Frame] = []
        play.confect.gate._brevity = Brevity()
        for kind in ("mutation",) * _BRIEF_RUNS * shares:
            play.confect.gate._brevity.ran(play.function(kind).name, 0.0)

    def run(self) -> None:
        """Run them, up to the child's death if that comes."""
        play = self.play
        if self.shares and play.one_writer:
            for at in range(1, len(self.messages)):
                self._others(at)
        play.at_the_end = [lambda: self._others(len(self.messages), 0)] * self.shares
        plans = [play.plans[message.key] for message in self.messages]
        play.others_come_between = not play.one_writer and any((self.between, *((p.first or p.last) for p in plans)))
        try:
            while self.next < len(self.messages):
                self._step()
                again, self.again = sorted(self.again), []
                for at in again:
                    self._deliver(at, Relay(play.store, play.clock, play.settings, lambda: False))
            self.relay.flush()
        except ChildDied as death:
            with play.undisturbed():
                self.sharing.abandon(death)
                self._has_died()
        except BaseException as error:
            self.sharing.abandon(error)
            raise
        finally:
            play.at_the_end = []
        play.waiting.clear()

    # -- what the package asks of it

    def _next_claims(self) -> bool:
        row = next(self._next_rows(), None)
        return row is not None and row.kind != "mutation" and row.scheduled_time <= self.play.clock.now()

    def _following(self) -> Iterator[Pending]:
        now = self.play.clock.now()
        for row in self._next_rows():
            if row.scheduled_time > now or not self.play.confect.gate.may_share(row):
                return
            yield row

    def _next_rows(self) -> Iterator[Pending]:
        for message in self.messages[self.next :]:
            row = self.found.get(message.id)
            if row is None or row.attempt != message.attempt:
                return
            yield row

    def _step(self) -> None:
        play, at, self.next = self.play, self.next, self.next + 1
        message = self.messages[at]
        if at and not (self.shares and play.one_writer):
            self._others(at)
        self.waited = list(play.waiting)
        try:
            self._deliver(at, self.relay)
            self.relay.flush(but=message.id)
        except DBAPIError:
            if play.peace:
                raise
        play.waiting = [frame for frame in play.waiting if frame not in self.waited]
        if self.relay.waits:
            play.waiting.append(self._frame(at))

    # -- how

    def _frame(self, at: int) -> Frame:
        message = self.messages[at]
        return Frame(message.key, message.id, message.attempt, True)

    def _others(self, number: int, at: int | None = None) -> None:
        if number > len(self.between):
            return
        frame = self._frame(number if at is None else at)
        self.play.running.append(frame)
        self.play.meanwhile([self.between[number - 1]], frame)
        self.play.running = [each for each in self.play.running if each is not frame]

    def _deliver(self, at: int, relay: Relay) -> None:
        message = self.messages[at]
        row = self.found.get(message.id)
        if row is None or row.attempt != message.attempt:
            return
        self.play.happened["in a batch"] += 1
        if self.play.deliver(message, loaded=row, relay=relay, child=self):
            self.again.append(at)

    def _has_died(self) -> None:
        """The main process tells of the row before and of all the others, which end here unless they had ended."""
        play, died = self.play, self.died
        assert died is not None
        play._child_died(died)
        for frame in self.waited:
            play.excuse_loss(frame.key)
        if play.plans[died.key].told != "at once":
            return
        for frame in self.waited:
            play.told.append((frame.id, frame.attempt, 1))
            play.reconciler.succeeded(frame.id, frame.attempt)
        before: dict[int, Row] = play.rows()
        rest = [message for message in self.messages if message.id != died.id]
        for message in rest:
            row = before.get(message.key)
            pending = row is not None and row.state == "pending" and row.attempt == message.attempt
            play.told.append((message.id, message.attempt, int(pending)))
            play.told_given_back.add(message.id)
        play.reconciler.not_begun([(m.id, m.attempt) for m in rest], alone=False)
        play.apply_told()
