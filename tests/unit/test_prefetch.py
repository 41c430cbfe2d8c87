"""How many messages a worker that gathers has at a time."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from celery.worker.consumer import Consumer
from kombu import Connection
from kombu.common import QoS

from confect_celery.runtime import prefetch
from confect_celery.runtime.prefetch import Prefetch


class Worker:
    """Two children, on RabbitMQ; `told` is what its broker was asked for, `now` its time."""

    def __init__(self, each: int = 4, most: int | None = None) -> None:
        self.told: list[int] = []
        self.now = 5000.0
        self.prefetch_multiplier = each
        self.pool = SimpleNamespace(num_processes=2)
        self.task_consumer = SimpleNamespace(channel=object())
        self.qos_global: bool | None = True
        self.qos = QoS(lambda prefetch_count: self.told.append(prefetch_count), 2 * each, max_prefetch=most)
        self.qos.prev = self.qos.value
        self.prefetch = Prefetch(self)

    @property
    def max_prefetch_count(self) -> int:
        read: Any = Consumer.max_prefetch_count
        return int(read.fget(self))

    def turn(self, *, gathered: bool = False, others: bool = False, after: float = 0.01) -> int:
        """What it has then."""
        self.now += after
        self.prefetch.look(gathered=gathered, others=others)
        if self.qos.prev != self.qos.value:
            self.qos.update()
        return int(self.qos.value)


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> Worker:
    return at_its_time(monkeypatch, Worker())


def at_its_time(monkeypatch: pytest.MonkeyPatch, worker: Worker) -> Worker:
    monkeypatch.setattr(prefetch, "time", SimpleNamespace(monotonic=lambda: worker.now))
    return worker


def test_it_is_doubled_while_rows_go_together(worker: Worker) -> None:
    assert worker.turn() == 8
    assert [worker.turn(gathered=True) for _ in range(3)] == [16, 16, 16]
    assert [worker.turn(after=0.4) for _ in range(4)] == [16, 16, 8, 8]
    assert worker.told == [16, 8]


def test_the_first_that_is_none_of_them_ends_it_and_it_does_not_go_to_and_fro(worker: Worker) -> None:
    assert worker.turn(gathered=True, others=True) == 8
    assert worker.turn(gathered=True) == 16
    assert worker.turn(gathered=True, others=True) == 8
    assert [worker.turn(gathered=True, after=0.3) for _ in range(5)] == [8, 8, 8, 16, 16]
    assert worker.told == [16, 8, 16]


def test_what_celery_itself_changes_meanwhile_stays_changed(worker: Worker) -> None:
    assert worker.turn(gathered=True) == 16
    worker.qos.increment_eventually(3)  # messages with an eta that its timer has
    assert worker.turn(gathered=True) == 19
    assert worker.turn(others=True) == 11


def test_it_is_never_less_than_the_shops_again(worker: Worker) -> None:
    assert worker.turn(gathered=True) == 16
    worker.qos.value = 8  # Celery has set it, as it does by and by after a connection that was lost
    assert worker.turn(others=True) == 8


@pytest.mark.parametrize(("each", "had"), [(1, 2), (3, 6), (8, 16), (20, 40)])
def test_who_fetches_fewer_wants_it_so_and_who_fetches_more_needs_none(
    monkeypatch: pytest.MonkeyPatch, each: int, had: int
) -> None:
    worker = at_its_time(monkeypatch, Worker(each))
    assert worker.turn(gathered=True) == had
    assert worker.told == []


def test_no_more_than_the_worker_may_have(monkeypatch: pytest.MonkeyPatch) -> None:
    worker = at_its_time(monkeypatch, Worker(most=11))
    assert worker.turn(gathered=True) == 11
    assert worker.turn(others=True) == 8


def test_not_while_it_is_less_than_the_shops(worker: Worker) -> None:
    worker.qos.value = 4  # as after a connection that was lost, as long as tasks run
    assert worker.turn(gathered=True) == 4


def test_not_where_rabbitmq_counts_for_each_consumer(worker: Worker) -> None:
    worker.qos_global = False
    assert worker.turn(gathered=True) == 8
    with Connection("memory://") as connection:
        worker.task_consumer.channel = connection.channel()
        assert worker.turn(gathered=True, after=2) == 16, "other brokers know no difference"
