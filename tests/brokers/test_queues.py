"""Queues, routes, exchanges and priorities are Celery's, and hold by name for functions and plain tasks alike."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from confect_celery import Duration
from tests.brokers.conftest import KINDS, Shared
from tests.brokers.rig import Rig

ONE_BY_ONE = ("--pool", "prefork", "--concurrency", "1", "--prefetch-multiplier", "1")


def test_each_goes_to_its_queue(shared: Shared) -> None:
    rig, shop = shared.rig, shared.rig.shop
    functions = {"shop": shop.mark, "special": shop.special, "mail": shop.send, "plain": shop.plain_mark}
    delays = {"near": Duration.seconds(1), "far": Duration.seconds(3)}  # published by this process; by a dispatcher
    jobs = {(queue, name): (delays[name], functions[queue]) for queue in functions for name in delays}
    rig.succeeded([rig.schedule(job, f"{name} to {queue}", delay) for (queue, name), (delay, job) in jobs.items()])

    for queue, name in jobs:
        mark = rig.mark(f"{name} to {queue}")
        assert mark.queue in (queue, "shop.all")  # with a topic exchange the default queue has a key of its own
        worker = {"special": shared.first}.get(queue, shared.second)
        assert queue == "shop" or worker.log.stem in mark.worker


def test_a_signature_says_where_it_goes(shared: Shared) -> None:
    rig = shared.rig
    signature = rig.shop.plain_mark.s("aside").set(queue="aside", priority=3)
    signature.set(countdown=60, task_id="another", headers={"theirs": 1})  # time and id are the row's
    rig.succeeded([rig.scheduler.run_after(Duration.seconds(1), signature)])

    mark = rig.mark("aside")
    assert (mark.queue, mark.priority) == ("aside", 3)


# A process publishes to a topic exchange of Redis only when it has declared it itself: a limit of kombu's.
@pytest.mark.parametrize(
    ("server", "exchange_type"), [("redis", "direct"), ("rabbitmq", "direct"), ("rabbitmq", "topic")]
)
def test_exchanges_of_the_shops_own(server: str, exchange_type: str, new_rig: Callable[..., Rig]) -> None:
    letters = {"exchange": "letters", "exchange_type": exchange_type}
    bound = "letters.*" if exchange_type == "topic" else "letters.out"
    rig = new_rig(
        server,
        task_queues={"celery": {}, "post": {**letters, "routing_key": bound}},
        task_routes={"internal/mail/*": {**letters, "routing_key": "letters.out"}},
    )
    rig.worker("--concurrency", "1")
    near, far = Duration.seconds(1), Duration.seconds(3)
    signature = rig.shop.plain_mark.s("plain").set(exchange="letters", routing_key="letters.out")
    ids = [rig.schedule(rig.shop.send, "near", near), rig.schedule(rig.shop.send, "far", far)]
    rig.succeeded([*ids, rig.scheduler.run_after(near, signature)])

    came = {mark.label: (mark.exchange, mark.queue) for mark in rig.marks()}
    assert came == dict.fromkeys(("near", "far", "plain"), ("letters", "letters.out"))


PRIORITIES: dict[str, dict[str, Any]] = {
    # RabbitMQ: the higher the sooner, in queues made for it. Redis: the lower the sooner, in steps.
    "rabbitmq": {"task_queue_max_priority": 10, "task_default_priority": 5},
    "redis": {"broker_transport_options": {"queue_order_strategy": "priority", "priority_steps": [0, 3, 6, 9]}},
}


@pytest.mark.parametrize("server", PRIORITIES)
def test_priorities_order_what_waits(server: str, new_rig: Callable[..., Rig]) -> None:
    rig = new_rig(server, **PRIORITIES[server])
    rig.worker(*ONE_BY_ONE)
    shop, run = rig.shop, rig.scheduler.run_after
    held = run(Duration.seconds(3), shop.hold, {"label": "hold", "seconds": 4})
    # While it holds the only process, one or two messages wait in the worker; the others in the broker, in order.
    ids = [held, *(rig.schedule(shop.mark, f"first {n}", Duration.seconds(3.5)) for n in range(2))]
    sooner, later = (shop.nine, shop.nought) if server == "rabbitmq" else (shop.nought, shop.nine)
    ids += [rig.schedule(later, f"later {n}", Duration.seconds(4)) for n in range(4)]
    ids += [rig.schedule(sooner, f"sooner {n}", Duration.seconds(4.5)) for n in range(4)]
    rig.succeeded(ids, within=30)

    labels = [mark.label.split()[0] for mark in rig.marks()]
    assert [label for label in labels if label in ("sooner", "later")] == [*["sooner"] * 4, *["later"] * 4], labels


@pytest.mark.parametrize("server", ["redis", "rabbitmq"])
def test_a_burst_leaves_work_in_the_broker(server: str, new_rig: Callable[..., Rig]) -> None:
    """What is due at once is not drawn into one worker beyond its prefetch, or a second one would find nothing."""
    rig = new_rig(server)
    worker = rig.worker(*ONE_BY_ONE)
    held = rig.scheduler.run_after(Duration.seconds(2.5), rig.shop.hold, {"label": "hold", "seconds": 2})
    ids = [rig.schedule(rig.shop.mark, f"waits {n}", Duration.seconds(2.8)) for n in range(20)]
    rig.succeeded([held, *ids], within=30)

    while_held = worker.output().partition(f"[{held}] succeeded")[0]
    assert while_held.count("received") <= 5


def test_quorum_kinds_are_quorum_queues(new_rig: Callable[..., Rig]) -> None:
    """Or the suite would test classic queues under another name."""
    quorum = [kind for kind in KINDS if "quorum" in kind.name]
    assert len(quorum) == 2
    for kind in quorum:
        rig = new_rig(kind.server, **kind.config)
        queue = rig.app.amqp.queues["celery"]
        assert queue.queue_arguments == {"x-queue-type": "quorum"}
        assert queue.exchange.type == ("topic" if "topic" in kind.name else "direct")
