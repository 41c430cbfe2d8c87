"""Messages of one row each that wait for a busy child go to it together, and each row runs as if it had come alone."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import pytest
import redis
from celery import Celery, Task, signals
from celery.worker import state as worker_state
from kombu import Message
from kombu.common import QoS

from confect_celery import StateKind
from confect_celery.runtime import CeleryTransport
from confect_celery.runtime.arrivals import Reader, may_share
from confect_celery.runtime.batch_task import make_batch_task
from confect_celery.runtime.batches import BATCH_TASK, Entry, entries_of
from confect_celery.runtime.gathering import Gathering
from confect_celery.store import Delivery
from tests.brokers.rig import NEAR, Rig
from tests.faults.proxy import Proxy
from tests.support.listening import listening
from tests.support.processes import Worker
from tests.support.waiting import wait_for

NewRig = Callable[..., Rig]
ONE = ("--pool", "prefork", "--concurrency", "1")
BROKERS = pytest.mark.parametrize("server", ["redis", "rabbitmq"])


def gathering(new_rig: NewRig, server: str, **config: Any) -> Rig:
    """A shop whose workers gather whatever its rows take, on a slow machine too."""
    rig = new_rig(server, confect_dispatcher="off", **config)
    rig.env["TEST_GATHERS"] = "yes"
    return rig


def gathered(rig: Rig) -> int:
    """How many batches the workers have made, or got."""
    return sum(worker.output().count(f"{BATCH_TASK}[") for worker in rig.workers)


def publish(rig: Rig, ids: Sequence[str], times: int = 1) -> None:
    """A message of its own for each row, due now; more of them than their scheduler publishes."""
    transport = CeleryTransport(rig.app, rig.confect.settings)
    wait_for(lambda: rig.confect.clock.now() > max(row.scheduled_time for row in rig.rows(ids)), what="their time")
    for row in rig.rows(ids) * times:
        transport.publish(
            Delivery(row.id, row.name, row.kind, row.args, row.scheduled_time, row.attempt, row.options, row.parent_id)
        )


def schedule(rig: Rig, function: Any, labels: Sequence[str], **args: Any) -> list[str]:
    jobs = [(NEAR, function, {"label": label, **args}) for label in labels]
    return [str(id) for id in rig.scheduler.run_many(jobs)]


def once_each(rig: Rig, labels: Sequence[str]) -> None:
    left = Counter(mark.label for mark in rig.marks())
    assert {label: left[label] for label in labels} == dict.fromkeys(labels, 1)


def numbered(prefix: str, count: int) -> list[str]:
    return [f"{prefix} {number}" for number in range(count)]


@BROKERS
def test_what_waits_goes_together_and_is_told_of_under_its_own_ids(new_rig: NewRig, server: str) -> None:
    rig = gathering(new_rig, server, worker_send_task_events=True)
    labels = [numbered(prefix, 60) for prefix in ("m", "a", "p")]
    ids = schedule(rig, rig.shop.mark, labels[0])
    ids += schedule(rig, rig.shop.hold, labels[1], seconds=0)
    ids += schedule(rig, rig.shop.plain_mark, labels[2])
    publish(rig, ids)
    with listening(rig.app) as events:
        rig.worker()
        rig.succeeded(ids, within=60)
        done = ("task-received", "task-started", "task-succeeded")

        def told() -> Counter[tuple[str, str]]:
            return Counter((event["uuid"], event["type"]) for event in list(events) if event["type"] in done)

        wait_for(lambda: len(told()) >= 3 * len(ids), within=20, what="each row's own events")
    assert set(told().values()) == {1} and {id for id, _ in told()} == set(ids)
    assert gathered(rig) > 0
    once_each(rig, [*labels[0], *labels[1], *labels[2]])


@BROKERS
def test_each_message_is_acknowledged(new_rig: NewRig, server: str) -> None:
    rig = gathering(new_rig, server)
    ids = schedule(rig, rig.shop.mark, numbered("m", 100))
    publish(rig, ids)
    first = rig.worker(*ONE)
    rig.succeeded(ids, within=60)
    assert gathered(rig) > 0
    if server == "redis":  # which would give them to another only after an hour
        with redis.Redis.from_url(rig.app.conf.broker_url) as told:
            wait_for(lambda: told.hlen("unacked") == 0, within=10, what="all acknowledgements")
        return
    first.kill()
    last = schedule(rig, rig.shop.mark, ["last"])
    second = rig.worker(*ONE)
    rig.succeeded(last)
    assert second.output().count("received") == 1


def with_rows_that_wait(rig: Rig, *, seconds: float) -> tuple[Worker, list[str]]:
    """A worker whose one child is busy for so long, and thirty rows for it, of which it knows that they are brief."""
    brief = schedule(rig, rig.shop.mark, numbered("m", 40))
    publish(rig, brief)
    worker = rig.worker(*ONE)
    rig.succeeded(brief, within=60)
    schedule(rig, rig.shop.hold, ["slow"], seconds=seconds)
    rig.mark("slow")
    waiting = schedule(rig, rig.shop.mark, numbered("w", 30))
    publish(rig, waiting)
    return worker, waiting


@BROKERS
def test_what_waits_when_a_worker_stops_goes_to_another(new_rig: NewRig, server: str) -> None:
    rig = gathering(new_rig, server, worker_prefetch_multiplier=20)
    first, waiting = with_rows_that_wait(rig, seconds=3)
    first.stop()
    assert not [row for row in rig.rows(waiting[2:]) if row.state.kind.terminal], "one child was busy all the time"
    rig.worker(*ONE)
    rig.succeeded(waiting, within=20)
    once_each(rig, numbered("w", 30))


def test_what_waits_when_the_broker_is_lost_comes_again_and_goes_together(new_rig: NewRig) -> None:
    rig = gathering(new_rig, "rabbitmq", worker_prefetch_multiplier=40)
    url = urlsplit(rig.app.conf.broker_url)
    assert url.port is not None
    proxy = Proxy(url.port)
    rig.env["TEST_BROKER_URL"] = url._replace(netloc=f"{url.netloc.rpartition(':')[0]}:{proxy.port}").geturl()
    try:
        worker, waiting = with_rows_that_wait(rig, seconds=8)
        wait_for(lambda: in_queue(rig) == 0, within=4, what="the worker to have fetched them")
        assert not [row for row in rig.rows(waiting) if row.state.kind.terminal], "its one child was busy all the time"
        before = gathered(rig)
        proxy.cut()
        wait_for(lambda: "onnection to broker lost" in worker.output(), within=10, what="the worker to notice")
        rig.succeeded(waiting, within=60)
    finally:
        proxy.close()
    assert gathered(rig) > before, "it is known still how long they take"
    once_each(rig, ["slow", *numbered("w", 30)])


def in_queue(rig: Rig) -> int:
    """How many messages no worker has fetched."""
    with rig.app.connection_for_read() as connection:
        declared: Any = connection.default_channel.queue_declare(rig.app.conf.task_default_queue, passive=True)
        return int(declared.message_count)


def test_what_was_canceled_while_it_waited_does_not_start_nor_does_a_duplicate(new_rig: NewRig, tmp_path: Path) -> None:
    rig = gathering(new_rig, "rabbitmq", result_backend=f"file://{tmp_path}", task_ignore_result=False)
    ids = schedule(rig, rig.shop.mark, numbered("m", 120))
    publish(rig, ids, times=2)
    for id in ids[::2]:
        assert rig.scheduler.cancel(id)
    rig.worker(*ONE)
    last = schedule(rig, rig.shop.mark, ["last"])
    rig.succeeded(last, within=60)
    assert [row.state.kind for row in rig.rows(ids)] == [StateKind.CANCELED, StateKind.SUCCESS] * 60
    assert gathered(rig) > 0
    once_each(rig, [*numbered("m", 120)[1::2], "last"])
    assert len(rig.marks()) == 61
    assert {rig.app.AsyncResult(id).state for id in ids[::2]} == {"REVOKED"}


def test_rows_of_two_queues_do_not_go_together(new_rig: NewRig) -> None:
    rig = gathering(new_rig, "rabbitmq")
    functions = {"shop": rig.shop.mark, "special": rig.shop.special}
    ids = [schedule(rig, functions[queue], numbered(queue, 60)) for queue in functions]
    publish(rig, [id for pair in zip(*ids, strict=True) for id in pair])
    rig.worker(*ONE, "-Q", f"{rig.app.conf.task_default_queue},special")
    rig.succeeded([*ids[0], *ids[1]], within=60)
    assert gathered(rig) > 0
    came = {(mark.label.split()[0], mark.queue) for mark in rig.marks()}
    assert came == {
        ("shop", rig.app.conf.task_default_routing_key or rig.app.conf.task_default_queue),
        ("special", "special"),
    }


def test_what_takes_long_goes_alone(new_rig: NewRig) -> None:
    rig = new_rig("rabbitmq", confect_dispatcher="off")
    ids = schedule(rig, rig.shop.hold, numbered("slow", 40), seconds=0.05)
    publish(rig, ids)
    rig.worker("--pool", "prefork", "--concurrency", "2")
    rig.succeeded(ids, within=60)
    assert gathered(rig) == 0


@BROKERS
def test_a_worker_that_gathers_fetches_more_meanwhile(new_rig: NewRig, server: str) -> None:
    rig = gathering(new_rig, server)
    ids = schedule(rig, rig.shop.mark, numbered("m", 200))
    publish(rig, ids)
    worker = rig.worker(*ONE, "--loglevel", "DEBUG")
    rig.succeeded(ids, within=60)
    changes = re.compile(r"prefetch_count->(\d+)")
    wait_for(lambda: changes.findall(worker.output())[-2:] == ["8", "4"], within=20, what="the shop's own prefetch")


def test_it_can_be_turned_off(new_rig: NewRig) -> None:
    rig = gathering(new_rig, "rabbitmq", confect_gathered=1)
    ids = schedule(rig, rig.shop.mark, numbered("m", 100))
    publish(rig, ids)
    rig.worker(*ONE)
    rig.succeeded(ids, within=60)
    assert gathered(rig) == 0


def test_a_pool_that_scales_sees_what_waits(new_rig: NewRig) -> None:
    rig = gathering(new_rig, "rabbitmq", worker_prefetch_multiplier=10)
    ids = schedule(rig, rig.shop.mark, numbered("m", 400))
    publish(rig, ids)
    worker = rig.worker("--pool", "prefork", "--autoscale", "3,1")
    rig.succeeded(ids, within=60)
    assert "Scaling up" in worker.output()


APP = Celery("gathering", broker="memory://", set_as_current=False)
REQUEST = {"Request": "confect_celery.runtime.task:ConfectRequest"}
PLAIN = APP.register_task(type("Plain", (Task,), {"run": print, "name": "t", **REQUEST})())
APP.register_task(type("Batch", (Task,), {"run": print, "name": BATCH_TASK})())
BODY = '[[], {}, {"callbacks": null, "errbacks": null, "chain": null, "chord": null}]'
PAST, FUTURE = "2026-11-01T12:00:00+00:00", "2999-01-01T12:00:00+00:00"
CAME = {"exchange": "", "routing_key": "celery", "priority": 0}
ALONE = {"id": "0198", "task": "t", "confect_attempt": 2, "eta": PAST, "retries": 0, "timelimit": [600.0, None]}


def message(body: Any = BODY, came: Any = CAME, **headers: Any) -> tuple[Any, ...]:
    made = Message(body=body, headers={**ALONE, **headers}, delivery_info=came)
    return made, None, print, print, []


@pytest.mark.parametrize(
    ("given", "limit"),
    [
        (message(), 600.0),
        (message(BODY.encode()), 600.0),
        (message(eta=None), 600.0),
        (message(timelimit=[None, None]), 7),
        (message('[["x", 5], {"y": 1}, ' + BODY[8:]), 600.0),
    ],
)
def test_a_message_as_ours_are_may_share(given: tuple[Any, ...], limit: float) -> None:
    arrival = Reader(PLAIN, print, 7).read(given)
    assert arrival is not None and arrival.given == given and arrival.handle is print
    assert (arrival.entry, arrival.limit) == (Entry("0198", 2, "t"), limit)
    assert arrival.way == (limit, "", "celery", 0)


@pytest.mark.parametrize(
    "given",
    [
        message(confect_attempt=None),
        message(confect_attempt=-1),
        message(confect_attempt="2"),
        message(id=None),
        message(id=["x"]),
        message(id="x" * 99),
        message(eta=FUTURE),
        message(eta="soon"),
        message(eta=5),
        message(expires=PAST),
        message(retries=1),
        message(group="g"),
        message(shadow="other"),
        message(replaced_task_nesting=1),
        message(traceparent="somebody's"),
        message(stamped_headers=["s"]),
        message(timelimit=[600, 500]),
        message(timelimit=["x", None]),
        message(timelimit=None),
        message(timelimit=5),
        message('[[], {}, {"callbacks": null, "errbacks": null, "chain": null, "chord": {"task": "u"}}]'),
        message(b"\xff"),
        message({"args": []}),
        message(None),
        message(came="celery"),
        (*message()[:1], {"args": []}, print, print, []),
    ],
)
def test_anything_else_goes_alone(given: tuple[Any, ...]) -> None:
    assert Reader(PLAIN, print, None).read(given) is None


def test_what_a_functions_message_has_its_row_has_too(new_rig: NewRig) -> None:
    rig = new_rig("redis")
    reader = Reader(rig.app.tasks[rig.shop.mark.name], print, None)
    assert reader.read(message(traceparent="the row's")) is not None
    assert reader.read(message(replaced_task_nesting=1)) is None


def test_so_does_what_is_revoked_and_all_where_somebody_wants_to_hear_of_each(monkeypatch: pytest.MonkeyPatch) -> None:
    reader = Reader(PLAIN, print, None)
    monkeypatch.setattr(worker_state, "revoked", {"0198"})
    assert reader.read(message()) is None
    monkeypatch.undo()
    assert reader.read(message()) is not None

    def hear(**_: Any) -> None: ...

    signals.task_received.connect(hear)
    try:
        assert reader.read(message()) is None
    finally:
        signals.task_received.disconnect(hear)


def test_tasks_that_the_shop_handles_otherwise_go_alone(new_rig: NewRig) -> None:
    rig = new_rig("redis")
    app: Celery = rig.app
    assert may_share(app.tasks[rig.shop.mark.name]) and not may_share(make_batch_task(rig.confect))
    own: dict[str, dict[str, Any]] = {
        "late": {"acks_late": True},
        "soft": {"soft_time_limit": 5},
        "request": {"Request": "celery.worker.request:Request"},
        "strategy": {"Strategy": "tests.brokers.test_gathering:may_share"},
    }
    for name, options in own.items():
        members: dict[str, Any] = {"run": print, "name": name, **options}
        assert not may_share(app.register_task(type("Own", (Task,), members)())), name


class Pool:
    """A worker's loop of which the test makes each turn, and that has one child; what is handed over has its id."""

    def __init__(self) -> None:
        self.handed: list[list[str]] = []
        self.app = APP
        self.strategies = {"t": self.take, BATCH_TASK: self.take}
        self.hub = SimpleNamespace(on_tick=set())
        self.controller = SimpleNamespace(max_concurrency=None, time_limit=None)
        self.pool = SimpleNamespace(num_processes=1, _pool=SimpleNamespace(on_poll_start=lambda: None))
        self.prefetch_multiplier = self.max_prefetch_count = 4
        self.qos, self.qos_global = QoS(print, 4), True
        self.task_consumer = SimpleNamespace(channel=object())
        self.gathering = Gathering(self, most=4, seconds={})

    def take(self, message: Any, *_: Any) -> None:
        headers = message.headers
        self.handed.append([entry.id for entry in entries_of(headers)] or [headers["id"]])
        request = SimpleNamespace(id=headers["id"], time_start=time.time())
        worker_state.requests[request.id] = request

    def comes(self, *ids: str, **headers: Any) -> None:
        for id in ids:
            self.strategies["t"](*message(id=id, **headers))

    def turn(self) -> list[list[str]]:
        """The child is through with what it had."""
        worker_state.requests.clear()
        (tick,) = self.hub.on_tick
        tick()
        handed, self.handed = self.handed, []
        return handed


@pytest.fixture
def pool() -> Iterator[Pool]:
    it = Pool()
    it.gathering.begin()
    it.comes("first")  # from whose run it is known how long one takes
    assert it.turn() == [["first"]]
    yield it
    it.gathering.end()
    worker_state.requests.clear()
    assert not it.hub.on_tick


def test_a_free_child_gets_what_comes_at_once_and_a_busy_one_as_much_as_it_may(pool: Pool) -> None:
    pool.comes("a", "b", "c", "d", "e", "f")
    assert pool.handed == [["a"]]
    assert [pool.turn() for _ in range(4)] == [[["a"], ["b", "c", "d", "e"]], [["f"]], [], []]


def test_more_is_fetched_while_nothing_but_brief_rows_comes(pool: Pool) -> None:
    pool.comes("a", "b", "c")
    assert (pool.turn(), pool.qos.value) == ([["a"], ["b", "c"]], 8)
    pool.turn()
    pool.comes("d", confect_attempt=None)
    (tick,) = pool.hub.on_tick
    tick()
    assert pool.qos.value == 4


def test_what_came_another_way_and_what_is_revoked_meanwhile_goes_by_itself(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool.comes("a", "b", "c")
    pool.comes("d", timelimit=[5, None])
    pool.comes("e")
    assert [pool.turn() for _ in range(3)] == [[["a"], ["b", "c", "e"]], [["d"]], []]
    pool.comes("f", "g", "h", "i")
    monkeypatch.setattr(worker_state, "revoked", {"g"})
    assert [pool.turn() for _ in range(3)] == [[["f"], ["g"]], [["h", "i"]], []]
    pool.comes("j", "k", "l", "m")
    monkeypatch.setattr(worker_state, "revoked", {"l"})
    assert [pool.turn() for _ in range(3)] == [[["j"], ["k", "m"]], [["l"]], []]


def test_no_more_go_together_than_take_a_moment(pool: Pool) -> None:
    pool.gathering._seconds["t"] = 0.012
    pool.comes("a", "b", "c", "d")
    assert [pool.turn() for _ in range(2)] == [[["a"], ["b", "c"]], [["d"]]]
    pool.gathering._seconds["t"] = 5.0
    pool.comes("e", "f", "g")
    assert pool.handed == [["e"], ["f"], ["g"]], "what takes long waits in the pool, as ever"
