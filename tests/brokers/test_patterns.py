"""A message made from a pattern is the message that Celery would have sent, and is refused as that one would be."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import redis
from amqp.transport import _AbstractTransport
from celery import Celery, signals
from kombu import Queue

from confect_celery import DateTime, Duration
from confect_celery.runtime import CeleryTransport, Outbox
from confect_celery.runtime.batches import BatchTransport
from confect_celery.runtime.dispatcher import Dispatcher
from confect_celery.store import Delivery, ScheduledFunctionId
from tests.brokers.rig import Rig
from tests.support.brokers import Brokers
from tests.support.waiting import wait_for

NewRig = Callable[..., Rig]

NOW = DateTime.parse("2026-03-28T09:00:00.000001Z")
MARK, PLAIN, NOWHERE = "internal/test/mark", "plain.mark", "plain.of_another_service"
GIVEN = {"__type__": "datetime", "__value__": "2026-01-01T00:00:00+00:00"}

TIMED = ("delivery_tag", "expiration")
"""The broker's own number, and how long it is until a message expires."""

FUNCTIONS: dict[str, dict[str, Any]] = {
    "nothing": {},
    "trace headers": {"headers": {"traceparent": "00-1-2-01", "baggage": "a=b"}},
    "its own options": {"queue": "special", "priority": 7, "time_limit": 5.5},
    "no time limit": {"time_limit": None},
    "a retry's": {"retries": 2},
    "what is shown": {"argsrepr": "(1,)", "kwargsrepr": "{'a': '…'}"},
    "its family": {"root_id": "a-root", "parent_id": "a-parent", "reply_to": "somebody"},
    "an exchange": {"exchange": "letters", "routing_key": "letters.out"},
    "a time that the row knows better": {"countdown": 60, "eta": "2031-01-01T00:00:00+00:00"},
}
TASKS: dict[str, dict[str, Any]] = {
    **FUNCTIONS,
    "arguments by position": {"args": [1, "b", None, {"c": [2.5]}]},
    "what only Celery's serializer brings back": {"args": [GIVEN], "headers": {"since": GIVEN}},
    "another serializer": {"serializer": "yaml"},
    "compression": {"compression": "zlib"},
    "a soft time limit": {"soft_time_limit": 3, "time_limit": 4},
    "its result": {"ignore_result": False},
    "a task in its place": {"confect_task": "plain.other"},
}
IN_FULL: dict[str, dict[str, Any]] = {
    "headers in place of Celery's": {"headers": {"timelimit": [1, 1], "shadow": "x"}},
    "expiry": {"expires": (dt.datetime.now(dt.UTC) + dt.timedelta(days=1)).isoformat()},
    "a link": {"link": [{"task": PLAIN, "args": [], "kwargs": {}, "options": {}}]},
    "a shadow": {"shadow": "another name"},
    "a delivery mode": {"delivery_mode": 1},
}


def a_delivery(name: str, options: dict[str, Any], args: Any = None) -> Delivery:
    kind: Any = "mutation" if name.startswith("internal/") else "task"
    given = {"label": "é"} if args is None else args
    return Delivery(ScheduledFunctionId("an-id"), name, kind, given, NOW, 3, options, ScheduledFunctionId("its-parent"))


SHAPES = [
    *(pytest.param(a_delivery(MARK, options), True, id=f"function: {shape}") for shape, options in FUNCTIONS.items()),
    *(pytest.param(a_delivery(PLAIN, options), True, id=f"task: {shape}") for shape, options in TASKS.items()),
    *(pytest.param(a_delivery(PLAIN, options), False, id=f"in full: {shape}") for shape, options in IN_FULL.items()),
    pytest.param(a_delivery(PLAIN, {}, {"when": GIVEN, "none": None}), True, id="task: typed keywords"),
    pytest.param(a_delivery(NOWHERE, {"queue": "special"}), True, id="task: of another service"),
]


@contextmanager
def heard() -> Iterator[list[str]]:
    """While somebody listens to what is published, all is published in full."""
    names: list[str] = []

    def hear(sender: str, **_: Any) -> None:
        names.append(sender)

    signals.before_task_publish.connect(hear, weak=False)
    try:
        yield names
    finally:
        signals.before_task_publish.disconnect(hear)


def transport_of(rig: Rig) -> CeleryTransport:
    return CeleryTransport(rig.app, rig.confect.settings)


def _came(rig: Rig, queue: str) -> list[Any]:
    """All messages of the queue: what of them a worker can tell apart."""
    with rig.app.connection_for_read() as connection:
        bound = rig.app.amqp.queues[queue](connection.default_channel)
        messages = []
        while (message := bound.get(no_ack=True, accept=["json", "yaml"])) is not None:
            properties = {name: value for name, value in message.properties.items() if name not in TIMED}
            form = message.content_type, message.content_encoding, message.delivery_info.get("exchange")
            messages.append((message.body, message.headers, properties, form))
        return messages


@pytest.fixture(params=["redis", "rabbitmq"])
def broker(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def sending(broker: str, new_rig: NewRig) -> Rig:
    letters = {"exchange": "letters", "exchange_type": "direct", "routing_key": "letters.out"}
    return new_rig(broker, task_queues={"celery": {}, "special": {}, "post": letters})


@pytest.mark.parametrize(("delivery", "by_pattern"), SHAPES)
def test_the_same_message(sending: Rig, delivery: Delivery, by_pattern: bool) -> None:
    queue = "post" if "exchange" in delivery.options else delivery.options.get("queue", "celery")
    rig, transport = sending, transport_of(sending)
    with rig.app.connection_for_write() as connection:
        rig.app.amqp.queues[queue](connection.default_channel).declare()
    with heard() as names:
        transport.publish(delivery)
        assert transport.publish_each([delivery] * 2) == [delivery] * 2
    assert len(names) == 1
    (in_full,) = _came(rig, queue)

    transport.publish(delivery)
    left = transport.publish_each([delivery] * 30)
    assert left == ([] if by_pattern else [delivery] * 30)
    came = _came(rig, queue)
    assert len(came) == (31 if by_pattern else 1)
    for each in came:
        assert each == in_full


@pytest.mark.parametrize("delivery", [shape.values[0] for shape in SHAPES], ids=[shape.id for shape in SHAPES])
def test_the_same_request(new_rig: NewRig, delivery: Delivery) -> None:
    transport = transport_of(new_rig("redis"))
    in_full = transport._full_request(delivery)
    first, second = transport.request(delivery), transport.request(delivery)
    assert first == second == in_full
    for name, value in first.items():
        if isinstance(value, (list, dict)) and name not in delivery.options.get("headers", {}):
            assert value is not second[name], name


def test_hidden_arguments_stay_hidden(new_rig: NewRig) -> None:
    rig = new_rig("redis", confect_show_args=False)
    assert transport_of(rig).publish_each([a_delivery(PLAIN, {})] * 2) == []
    assert [(each[1]["argsrepr"], each[1]["kwargsrepr"]) for each in _came(rig, "celery")] == [
        ("(hidden)", "(hidden)")
    ] * 2


@pytest.mark.parametrize("way", ["each", "full", "request"])
def test_large_arguments_are_shown_in_part(new_rig: NewRig, broker: str, way: str) -> None:
    """What is shown goes in the headers, and RabbitMQ closes the connection over large ones."""
    rig = new_rig(broker)
    label, transport = "large" * 50_000, transport_of(rig)
    delivery = a_delivery(PLAIN, {"args": [label]}, {"label": label})
    if way == "request":
        headers: Any = transport.request(delivery)
    elif way == "full":
        with heard():
            transport.publish(delivery)
    else:
        assert transport.publish_each([delivery] * 4) == []
    if way != "request":
        body, headers, *_ = _came(rig, "celery")[0]
        assert json.loads(body)[:2] == [[label], {"label": label}]
    assert len(headers["argsrepr"]) < 1100 and len(headers["kwargsrepr"]) < 1100
    assert headers["kwargsrepr"].startswith("{'label': 'largelarge")


def test_rows_of_one_pattern_keep_what_is_their_own(new_rig: NewRig, broker: str) -> None:
    rig = new_rig(broker)
    options: list[dict[str, Any]] = [{}, {"headers": {"of": "one"}}, {"headers": {"of": "another"}}, {"args": [1]}, {}]
    each = [
        Delivery(ScheduledFunctionId(f"id-{n}"), PLAIN, "task", {"n": n}, NOW + Duration.seconds(n), n, given, None)
        for n, given in enumerate(options)
    ]
    assert transport_of(rig).publish_each(each) == []
    headers = [headers for _, headers, _, _ in _came(rig, "celery")]
    assert [(h["id"], h["root_id"], h["confect_attempt"], h["kwargsrepr"], h.get("of")) for h in headers] == [
        (f"id-{n}", f"id-{n}", n, f"{{'n': {n}}}", of) for n, of in enumerate([None, "one", "another", None, None])
    ]
    assert len({h["eta"] for h in headers}) == 5


# -- whoever looks at each message, sees each


def test_a_send_task_of_the_shops_own(new_rig: NewRig, monkeypatch: pytest.MonkeyPatch) -> None:
    rig, seen = new_rig("redis"), []
    original = Celery.send_task

    def send_task(self: Any, name: str, *args: Any, **kwargs: Any) -> Any:
        seen.append(name)
        return original(self, name, *args, **kwargs)

    transport, delivery = transport_of(rig), a_delivery(MARK, {})
    assert transport.publish_each([delivery] * 2) == []
    monkeypatch.setattr(Celery, "send_task", send_task)
    assert transport.publish_each([delivery] * 2) == [delivery] * 2
    transport.publish(delivery)
    assert seen == [MARK]


def test_a_router_of_the_shops_own(new_rig: NewRig) -> None:
    rig = new_rig("redis")
    transport, urgent, other = transport_of(rig), a_delivery(PLAIN, {}, {"label": "urgent"}), a_delivery(PLAIN, {})
    assert transport.publish_each([other] * 2) == []

    def route(name: str, args: Any, kwargs: Any, options: Any, task: Any = None, **_: Any) -> Any:
        return {"queue": "special"} if kwargs.get("label") == "urgent" else None

    rig.app.conf.task_routes = route
    rig.app.amqp.flush_routes()
    rig.app.amqp.router = rig.app.amqp.Router()
    assert transport.publish_each([urgent] * 2) == [urgent] * 2
    transport.publish(urgent)
    transport.publish(other)
    assert (len(_came(rig, "special")), len(_came(rig, "celery"))) == (1, 3)


def test_a_task_whose_time_limit_is_changed(new_rig: NewRig) -> None:
    rig = new_rig("redis")
    transport, delivery = transport_of(rig), a_delivery(PLAIN, {})
    assert transport.publish_each([delivery] * 2) == []
    rig.app.tasks[PLAIN].time_limit = 7
    assert transport.publish_each([delivery] * 2) == []
    assert [each[1]["timelimit"] for each in _came(rig, "celery")] == [[None, None]] * 2 + [[7, None]] * 2


def test_many_are_written_at_once(new_rig: NewRig, monkeypatch: pytest.MonkeyPatch) -> None:
    """On RabbitMQ: small ones, and those that take several frames each."""
    rig = new_rig("rabbitmq")
    transport, write, sizes = transport_of(rig), _AbstractTransport.write, []
    each = [a_delivery(PLAIN, {}, {"label": label}) for label in ["small"] * 20 + ["large" * 50_000] * 5]
    assert transport.publish_each(each) == []  # its queue is declared

    def counted(self: Any, frames: Any) -> None:
        sizes.append(len(frames))
        write(self, frames)

    monkeypatch.setattr(_AbstractTransport, "write", counted)
    assert transport.publish_each(each) == []
    assert sum(size > 1_000_000 for size in sizes) == 1 and len(sizes) < 8
    came = [json.loads(body)[1]["label"] for body, *_ in _came(rig, "celery")]
    assert came == 2 * [delivery.args["label"] for delivery in each]


# -- what the broker does not take


def test_a_full_queue_takes_some(new_rig: NewRig) -> None:
    full = {"queue_arguments": {"x-max-length": 10, "x-overflow": "reject-publish"}}
    rig = new_rig("rabbitmq", task_queues={"celery": full}, confect_batch=1)
    transport = transport_of(rig)
    each = [replace(a_delivery(MARK, {}), id=ScheduledFunctionId(f"id-{n}")) for n in range(60)]
    left = transport.publish_each(each)
    came = {headers["id"] for _, headers, _, _ in _came(rig, "celery")}
    assert len(came) == 10 and {delivery.id for delivery in left} == {delivery.id for delivery in each} - came


def test_a_missing_exchange_and_a_deleted_queue(new_rig: NewRig) -> None:
    elsewhere = {"exchange": "elsewhere", "exchange_type": "topic", "routing_key": "else.where"}
    rig = new_rig("rabbitmq", task_routes={"internal/mail/*": elsewhere})
    transport = transport_of(rig)
    lost, fine = [a_delivery("internal/mail/send", {})] * 10, [a_delivery(MARK, {})] * 10
    assert transport.publish_each(lost) == lost
    assert transport.publish_each(fine) == []
    with rig.app.connection_for_write() as connection:
        assert Queue("celery")(connection.default_channel).delete() == 10
    assert transport.publish_each(fine) == fine, "nobody has them"
    transport.publish(fine[0])
    assert transport.publish_each(fine) == []
    assert len(_came(rig, "celery")) == 11


def test_redis_that_is_full_or_away(new_rig: NewRig, brokers: Brokers) -> None:
    server: Any = brokers.new("redis")
    server.start()
    try:
        url = server.url()
        rig, client = new_rig("redis", url), redis.Redis.from_url(url)
        transport, each = transport_of(rig), [a_delivery(MARK, {})] * 60
        assert transport.publish_each(each) == []
        client.config_set("maxmemory", "1")
        assert transport.publish_each(each) == each
        client.config_set("maxmemory", "0")
        assert transport.publish_each(each) == []
        assert len(_came(rig, "celery")) == 120
    finally:
        server.close()
    assert transport.publish_each(each) == each


def test_what_was_not_taken_goes_back_to_the_table(new_rig: NewRig) -> None:
    full = {"queue_arguments": {"x-max-length": 10, "x-overflow": "reject-publish"}}
    rig = new_rig("rabbitmq", task_queues={"celery": full}, confect_batch=1, confect_horizon=0.5)
    due = DateTime.now() + Duration.seconds(1)
    rig.scheduler.run_many([(due, rig.shop.mark, {"label": f"{n}"}) for n in range(40)])
    store, clock, settings = rig.confect.store, rig.confect.clock, rig.confect.settings
    transport = transport_of(rig)
    outbox = Outbox(store, transport, clock, BatchTransport(rig.app, settings, transport))
    dispatcher = Dispatcher(store, outbox, clock, settings)

    def claimed() -> bool:
        outbox.put(dispatcher.claim())
        return len(outbox) == 40

    def published() -> bool:
        outbox.tick()
        return len(outbox) == 0

    wait_for(claimed, what="all to be claimed")
    wait_for(published, what="all to be due")

    came = {headers["id"] for _, headers, _, _ in _came(rig, "celery")}
    assert len(came) == 10
    with rig.confect.reader() as db:
        rows = db.table("_scheduled_functions").collect()
    back = {row.id for row in rows if row.next_at < DateTime.now() + Duration.seconds(10)}
    assert {row.state.kind for row in rows} == {"pending"} and back == {row.id for row in rows} - came
