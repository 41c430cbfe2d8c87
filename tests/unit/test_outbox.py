"""An outbox sends rows at their time, those of a stream together; it knows the stream by what it holds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from celery import Celery
from celery.worker import state

from confect_celery import Confect, DateTime, Duration
from confect_celery.runtime.outbox import Outbox
from confect_celery.runtime.pace import Pace
from confect_celery.runtime.worker_step import Actors
from confect_celery.store import Delivery, RowKind, ScheduledFunctionId, Store
from confect_celery.timing import SettableClock

START = DateTime.from_epoch_millis(1_900_000_000_000)


class Sent:
    """A broker that takes all; a list a moment. Plain tasks do not share."""

    def __init__(self, clock: SettableClock) -> None:
        self.messages: list[int] = []
        self.spreads: list[int] = []
        self.ahead: list[tuple[str, float]] = []
        """Of what kind each row was, and how long before its time it went, in ms."""
        self._clock = clock

    def publish(self, deliveries: Delivery | list[Delivery]) -> None:
        sent = [deliveries] if isinstance(deliveries, Delivery) else deliveries
        self.messages.append(len(sent))
        now = self._clock.now()
        self.ahead += [(each.kind, (each.due - now).total_seconds() * 1000) for each in sent]

    def shares(self, delivery: Delivery) -> bool:
        return delivery.kind != "task"

    def bundle(self, deliveries: Iterable[Delivery], spread: int) -> list[list[Delivery]]:
        self.spreads.append(spread)
        given = list(deliveries)
        shared = [each for each in given if self.shares(each)]
        return [*([shared] if shared else []), *([each] for each in given if not self.shares(each))]

    def publish_each(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        return list(deliveries)


class Waiting:
    """A request that the pool has not accepted."""


def sent_of(count: int, tmp_path: Path) -> list[int]:
    """The messages of so many rows, one due each 2 ms."""
    return what_went(count, tmp_path).messages


def what_went(count: int, tmp_path: Path, kinds: Sequence[RowKind] = ("action",)) -> Sent:
    clock = SettableClock(START)
    sent = Sent(clock)
    pace = Pace(monotonic=lambda: clock.now().epoch_micros / 1_000_000)
    outbox = Outbox(Store(f"sqlite:///{tmp_path / 'outbox.db'}"), sent, clock, sent, pace)
    due = [START + Duration.millis(2 * n) for n in range(count)]
    kinds = [kinds[n % len(kinds)] for n in range(count)]
    outbox.put(
        Delivery(ScheduledFunctionId(f"r{n}"), "f", kind, {}, at, 0, {}, None)
        for n, (kind, at) in enumerate(zip(kinds, due, strict=True))
    )
    for _ in range(40):
        clock.advance(Duration.millis(min(max(outbox.tick() * 1000, 0.01), 1)))
    return sent


def test_a_stream_shares_messages_from_its_first_moment_on(tmp_path: Path) -> None:
    messages = sent_of(200, tmp_path)
    assert messages[0] == 7 and set(messages[1:]) == {3}, messages


def test_a_streams_rows_go_out_a_moment_before_their_time_and_few_at_their_time(tmp_path: Path) -> None:
    of_stream = [ahead for _, ahead in what_went(200, tmp_path).ahead]
    assert of_stream[0] == 0, "what is due at once"
    assert all(6 <= ahead <= 12 for ahead in of_stream[7:]), "time for what is left of the gathering, and for the way"
    (tmp_path / "few").mkdir()
    assert {ahead for _, ahead in what_went(10, tmp_path / "few").ahead} == {0}


def test_rows_of_one_instant_go_out_a_moment_before_it(tmp_path: Path) -> None:
    clock = SettableClock(START)
    sent = Sent(clock)
    pace = Pace(monotonic=lambda: clock.now().epoch_micros / 1_000_000)
    outbox = Outbox(Store(f"sqlite:///{tmp_path / 'outbox.db'}"), sent, clock, sent, pace)
    at = START + Duration.seconds(1)
    outbox.put(Delivery(ScheduledFunctionId(f"r{n}"), "f", "action", {}, at, 0, {}, None) for n in range(30))
    wait = outbox.tick()
    assert sent.messages == [] and 0.987 < wait < 0.9881
    clock.advance(Duration.seconds(wait))
    outbox.tick()
    assert sent.messages == [30] and sent.spreads == [4] and sent.ahead[0][1] >= 12


def test_what_cannot_share_a_message_goes_out_at_its_time_though_others_go_before(tmp_path: Path) -> None:
    went = what_went(200, tmp_path, ["action", "task"]).ahead
    assert all(-6.001 <= ahead <= 0 for kind, ahead in went if kind == "task")
    assert all(ahead > 5 for kind, ahead in went[7:] if kind == "action") and len(went) > 10


def test_what_has_gathered_in_a_stream_goes_in_one_message_from_its_first_moment_on(tmp_path: Path) -> None:
    assert set(what_went(200, tmp_path).spreads) == {1}
    (tmp_path / "few").mkdir()
    assert set(what_went(10, tmp_path / "few").spreads) == {4}


def test_what_cannot_share_goes_out_one_by_one_too_unless_it_is_much(tmp_path: Path) -> None:
    assert {ahead for _, ahead in what_went(50, tmp_path, ["task"]).ahead} == {0}
    (tmp_path / "much").mkdir()
    late = {ahead for _, ahead in what_went(200, tmp_path / "much", ["task"]).ahead}
    assert min(late) < -3


def test_few_go_out_one_by_one(tmp_path: Path) -> None:
    assert sent_of(10, tmp_path) == [1] * 10


def test_a_workers_outbox_gathers_while_messages_wait_for_a_child(tmp_path: Path) -> None:
    app = Celery("outbox", broker="memory://", set_as_current=False)
    app.conf.confect_database_url = f"sqlite:///{tmp_path / 'outbox.db'}"
    pace, now = Actors(Confect(app), dispatch=False).outbox.pace, [100.0]
    pace._monotonic = lambda: now[0]
    pace.went(["r"] * 100)
    now[0] += 0.006
    assert pace.wait(0) == 0.0
    waiting: list[Any] = [Waiting() for _ in range(3)]
    try:
        for each in waiting:
            state.reserved_requests.add(each)
        assert pace.wait(0) > 0.0
        for each in waiting[:2]:
            state.active_requests.add(each)
        assert pace.wait(0) == 0.0, "one waits now and then anyway"
    finally:
        for each in waiting:
            state.reserved_requests.discard(each)
            state.active_requests.discard(each)
