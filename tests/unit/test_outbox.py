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
from confect_celery.store import Delivery, ScheduledFunctionId, Store
from confect_celery.timing import SettableClock

START = DateTime.from_epoch_millis(1_900_000_000_000)


class Sent:
    """A broker that takes all; a list a moment."""

    def __init__(self) -> None:
        self.messages: list[int] = []
        self.spreads: list[int] = []

    def publish(self, deliveries: Delivery | list[Delivery]) -> None:
        self.messages.append(1 if isinstance(deliveries, Delivery) else len(deliveries))

    def bundle(self, deliveries: Iterable[Delivery], spread: int) -> list[list[Delivery]]:
        self.spreads.append(spread)
        return [list(deliveries)]

    def publish_each(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        return list(deliveries)


class Waiting:
    """A request that the pool has not accepted."""


def sent_of(count: int, tmp_path: Path) -> list[int]:
    """The messages of so many rows, one due each 2 ms."""
    return what_went(count, tmp_path).messages


def what_went(count: int, tmp_path: Path) -> Sent:
    clock, sent = SettableClock(START), Sent()
    pace = Pace(monotonic=lambda: clock.now().epoch_micros / 1_000_000)
    outbox = Outbox(Store(f"sqlite:///{tmp_path / 'outbox.db'}"), sent, clock, sent, pace)
    due = [START + Duration.millis(2 * n) for n in range(count)]
    outbox.put(Delivery(ScheduledFunctionId(f"r{n}"), "f", "action", {}, at, 0, {}, None) for n, at in enumerate(due))
    for _ in range(20):
        outbox.tick()
        clock.advance(Duration.millis(1))
    return sent


def test_a_stream_shares_messages_from_its_first_moment_on(tmp_path: Path) -> None:
    messages = sent_of(200, tmp_path)
    assert messages[0] == 1 and len(messages) <= 6 and sum(messages) >= 8, messages


def test_what_has_gathered_in_a_stream_goes_in_one_message_from_its_first_moment_on(tmp_path: Path) -> None:
    assert set(what_went(200, tmp_path).spreads) == {1}
    (tmp_path / "few").mkdir()
    assert set(what_went(10, tmp_path / "few").spreads) == {4}


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
