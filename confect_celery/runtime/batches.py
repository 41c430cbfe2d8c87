"""Many rows in one message, when many of one queue are due at once.

Such a message names rows and nothing else; the child that gets it runs each by its own rules. What a row asks of the
worker's main process, a limit of its rate for example, only a message of its own can have.
"""

from __future__ import annotations

import uuid
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from celery import Celery, signals
from celery.app.routes import MapRoute

from confect_celery.runtime.messages import task_name
from confect_celery.runtime.transport import CeleryTransport, own_options
from confect_celery.settings import Settings
from confect_celery.store import Delivery

__all__ = ["BATCH_HEADER", "BATCH_TASK", "LONGEST_SECONDS", "BatchTransport", "Entry", "batch_headers", "entries_of"]

BATCH_TASK: Final = "confect_celery.batch"
BATCH_HEADER: Final = "confect_batch"

LONGEST_SECONDS: Final = 0.5
"""A child that has worked on a batch for so long hands on what it has not begun."""

_MOST_ENTRIES: Final = 10_000
_LONGEST_ID: Final = 36
_MOST_ATTEMPTS: Final = 2**31

_PLAIN: Final = frozenset(
    {
        *("args", "argsrepr", "exchange", "headers", "ignore_result", "kwargsrepr", "parent_id", "priority", "queue"),
        *("reply_to", "root_id", "routing_key", "time_limit"),
    }
)
"""The options of a call that do not keep it from sharing a message."""


_WAY: Final = ("queue", "exchange", "routing_key", "priority", "time_limit")


_Way = tuple[Hashable, dict[str, Any], float | None]
"""A key that deliveries which go the same way have in common; the routing options of their message; the time limit."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One row of a batch, as its message names it."""

    id: str
    attempt: int
    name: str


def entries_of(headers: Any) -> list[Entry]:
    """The rows that a message names; of what anybody may have written there, what could be one."""
    given = headers.get(BATCH_HEADER) if hasattr(headers, "get") else None
    if not isinstance(given, list):
        return []
    return [entry for each in given[:_MOST_ENTRIES] if (entry := _entry(each)) is not None]


def _entry(given: Any) -> Entry | None:
    if not isinstance(given, list) or len(given) != 3:
        return None
    id, attempt, name = given
    if not (isinstance(id, str) and 0 < len(id) <= _LONGEST_ID and id.isprintable() and isinstance(name, str)):
        return None
    return Entry(id, attempt, name) if type(attempt) is int and 0 <= attempt < _MOST_ATTEMPTS else None


def batch_headers(id: str, entries: Sequence[Entry], limit: float | None) -> dict[str, Any]:
    """Those of a batch of these rows, each of which may run for so many seconds: its whole time, whenever its turn
    comes."""
    return {
        "lang": "py",
        "task": BATCH_TASK,
        "id": id,
        "root_id": id,
        "parent_id": None,
        "eta": None,
        "expires": None,
        "group": None,
        "retries": 0,
        "timelimit": [limit + LONGEST_SECONDS if limit else None, None],
        "argsrepr": f"({len(entries)} rows)",
        "kwargsrepr": "{}",
        "ignore_result": True,
        BATCH_HEADER: [[entry.id, entry.attempt, entry.name] for entry in entries],
    }


class BatchTransport:
    """Decides which rows may share a message, and sends it."""

    def __init__(self, app: Celery, settings: Settings, transport: CeleryTransport) -> None:
        self._app = app
        self._settings = settings
        self._transport = transport
        self._ways: dict[Hashable, _Way | None] = {}

    def shares(self, delivery: Delivery) -> bool:
        """Whether it may share a message."""
        return self._settings.batch > 1 and self._way(delivery) is not None

    def bundle(self, deliveries: Iterable[Delivery], spread: int) -> list[list[Delivery]]:
        """The same deliveries as they should go out, those that go the same way in `spread` messages at least; those
        that are alone in their list in a message of their own."""
        if self._settings.batch < 2:
            return [[delivery] for delivery in deliveries]
        bundles: list[list[Delivery]] = []
        shared: dict[Hashable, list[Delivery]] = {}
        for delivery in deliveries:
            way = self._way(delivery)
            if way is None:
                bundles.append([delivery])
            else:
                shared.setdefault(way[0], []).append(delivery)
        for group in shared.values():
            size = max(min(self._settings.batch, len(group) // spread), 1)
            bundles += [group[start : start + size] for start in range(0, len(group), size)]
        return bundles

    def publish(self, deliveries: list[Delivery]) -> None:
        """Send one message for all of these, which `bundle` put together; raises as `CeleryTransport.publish` does."""
        found = self._way(deliveries[0])
        if found is None:
            raise AssertionError(f"{deliveries[0].name} does not share messages")
        _, routed, limit = found
        amqp: Any = self._app.amqp
        id = str(uuid.uuid4())
        message = amqp.as_task_v2(id, BATCH_TASK)
        entries = [Entry(each.id, each.attempt, _sent_as(each)) for each in deliveries]
        message.headers.update(batch_headers(id, entries, limit))
        with self._transport.producer() as (producer, confirmed):
            amqp.send_task_message(producer, BATCH_TASK, message, **{**confirmed, **routed})

    def publish_each(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        """Send a message for each; as `CeleryTransport.publish_each`."""
        return self._transport.publish_each(deliveries)

    def _way(self, delivery: Delivery) -> _Way | None:
        """How the delivery's message would go, and a key to that; None where it must have one of its own."""
        try:
            if delivery.deliveries or not _PLAIN.issuperset(delivery.options):
                return None
            given = {name: delivery.options.get(name) for name in _WAY}
            key = (delivery.name, delivery.kind, *given.values())
            if key not in self._ways:
                self._ways[key] = self._find_way(delivery, given)
            return self._ways[key]
        except Exception:  # somebody wrote the row by hand; a message of its own will tell better
            return None

    def _find_way(self, delivery: Delivery, given: Mapping[str, Any]) -> _Way | None:
        app, name = self._app, task_name(delivery.name, delivery.options)
        task = app.tasks.get(name)
        if task is None or task.acks_late or task.rate_limit or app.conf.task_soft_time_limit or task.soft_time_limit:
            return None
        router: Any = app.amqp.router  # the stubs know little of it
        if delivery.kind == "task" and (signals.before_task_publish.receivers or signals.after_task_publish.receivers):
            return None  # the shop wants to hear of each of its messages
        if not all(isinstance(route, MapRoute) for route in router.routes or ()):
            return None  # a router of the shop's may look at the arguments
        options = {**own_options(task), **{key: value for key, value in given.items() if value is not None}}
        if not options.keys() <= {*given, "ignore_result", "serializer", "compression"}:
            return None
        limit = options.get("time_limit") or app.conf.task_time_limit
        if delivery.kind != "task":
            limit = given["time_limit"] or self._settings.time_limit.total_seconds()
        routed = router.route({key: options[key] for key in given if key in options}, name, (), {}, task)
        routed = {key: routed[key] for key in _WAY if routed.get(key) is not None}
        queue = getattr(routed.get("queue"), "name", routed.get("queue"))
        key = (queue, str(routed.get("exchange")), routed.get("routing_key"), routed.get("priority"), limit)
        return key, routed, limit


def _sent_as(delivery: Delivery) -> str:
    return task_name(delivery.name, delivery.options)
