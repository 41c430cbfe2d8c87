"""Messages made from a pattern: what all rows of one function have in common is worked out once.

Celery itself makes the pattern: it publishes an example to a producer that only listens. What each row fills in is
proved on a second example, of which everything is different, before a message is made so. Whatever of the shop's may
look at each message (a router, a receiver of a signal, a `send_task` of its own) sees each: then there is no pattern.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, replace
from types import FunctionType
from typing import Any, Final, NamedTuple

from celery import Celery, signals
from celery.app import amqp as celery_amqp
from celery.app import base as celery_base
from celery.app.routes import MapRoute, Router
from celery.app.task import extract_exec_options  # type: ignore[attr-defined]  # the stubs forget it
from kombu.serialization import dumps

from confect_celery.runtime.messages import ATTEMPT_HEADER, HIDDEN, RUNS_AS, Call, call_in, shown
from confect_celery.store import Delivery, ScheduledFunctionId
from confect_celery.timing import Duration

__all__ = ["Full", "Message", "Patterns"]

logger = logging.getLogger(__name__)

_EACH: Final = frozenset(
    {"args", "argsrepr", "headers", "kwargsrepr", "parent_id", "reply_to", "root_id", "countdown", "eta"}
)
"""The options of a call that each row may have its own of; the last two are Celery's, and the row knows better."""

_SHARED: Final = frozenset(
    {
        *("exchange", "ignore_result", "priority", "queue", "retries", "routing_key"),
        *("compression", "serializer", "soft_time_limit", "time_limit"),
        RUNS_AS,
    }
)
"""Those that rows of one pattern have in common. With any other a row has no pattern."""

_MOST: Final = 1000

_SIGNALS: Final = (signals.before_task_publish, signals.after_task_publish, signals.task_sent)

Full = Callable[[Delivery], tuple[str, dict[str, Any]]]
"""The name and options with which Celery's `send_task` publishes a delivery."""


class Message(NamedTuple):
    """What `Producer.publish` is to be called with, for the row of this id."""

    id: str
    body: Any
    options: dict[str, Any]


class _Listener:
    """Stands in for a producer: hears what it is to publish."""

    def __init__(self, connection: Any) -> None:
        self.connection = connection
        self.body: Any = None
        self.options: dict[str, Any] = {}

    def publish(self, body: Any, **options: Any) -> None:
        self.body, self.options = body, options


class _Dict:
    """A dict of which a row fills in some fields. No two that it makes have an object in common that can change."""

    def __init__(self, made: Mapping[str, Any], own: Mapping[str, Any]) -> None:
        self._same = {name: value for name, value in made.items() if name not in own}
        self._copied = {name: type(value) for name, value in made.items() if isinstance(value, (list, dict))}
        self._taken = frozenset(made)

    def fill(self, own: Mapping[str, Any], headers: Mapping[str, Any] | None) -> dict[str, Any] | None:
        """None where the shop's `headers` stand in place of Celery's."""
        if headers and not self._taken.isdisjoint(headers):
            return None
        filled = {**self._same, **(headers or {}), **own}
        for name, kind in self._copied.items():
            if name not in own:
                filled[name] = kind(filled[name])
        return filled


@dataclass(frozen=True, slots=True)
class _Publishing:
    """How a message is published."""

    headers: _Dict
    options: dict[str, Any]
    twice: tuple[str, ...]
    """What of a row is among the options as well as among the headers."""
    declared: tuple[Any, ...]
    embedded: Any
    encoded: tuple[str, str, Any] | None = None
    """The body, encoded, where it is the same for all: that of a function's message."""


class Patterns:
    """The patterns of one app. `full` tells how Celery's `send` publishes a delivery, and `request` what a worker would
    make of the message: as they do, so do the patterns."""

    def __init__(
        self, app: Celery, full: Full, send: Callable[..., Any], request: Callable[[Delivery], dict[str, Any]],
        *, show_args: bool,
    ) -> None:  # fmt: skip
        self._app = app
        self._full = full
        self._send = send
        self._request = request
        self._shows = show_args
        self._made: dict[Hashable, Any] = {}
        self._made_in: Hashable = None
        self._made_with: Hashable = None

    # -- whether

    def hold(self) -> bool:
        """Whether messages may be made so now, in this thread. For a run of messages it is asked once."""
        app, conf = self._app, self._app.conf
        made_with = conf.task_default_queue, conf.task_ignore_result
        if made_with != self._made_with:
            self._made, self._made_with = {}, made_with
        return (
            self._know()
            and not any(signal.receivers for signal in _SIGNALS)
            and not conf.task_send_sent_event
            and not conf.task_always_eager
            and app.current_worker_task is None  # what it publishes is its child
            and self._publishes_as_celery()
        )

    def _know(self) -> bool:
        """Whether messages are made as Celery does, and go where its settings say. Forgets what was made otherwise."""
        amqp = self._app.amqp
        router: Any = amqp.router  # the stubs know little of it
        made_in = os.getpid(), id(router)  # the process's name is in each message
        if made_in != self._made_in or len(self._made) >= _MOST:
            self._made, self._made_in = {}, made_in
        if not all(isinstance(route, MapRoute) for route in router.routes or ()):
            return False  # another may look at the arguments
        return type(amqp) is celery_amqp.AMQP and type(router) is Router

    def _publishes_as_celery(self) -> bool:
        app: Any = self._app
        own = vars(app).get("send_task")
        if own is not None and getattr(own, "before", own) is not None:
            return False
        return (
            _is_of(celery_base, type(app).send_task)
            and _is_of(celery_amqp, app.amqp.send_task_message)
            and _is_of(celery_amqp, getattr(app.amqp.create_task_message, "__func__", None))
        )

    # -- what

    def message(self, delivery: Delivery) -> Message | None:
        """The delivery's message; None where it has no pattern. Raises what the serializer has against it."""
        call = call_in(delivery)
        found: _Publishing | None = self._pattern("message", delivery, call, self._listen)
        if found is None:
            return None
        own = self._own(delivery, call)
        headers = found.headers.fill(own, call.given.get("headers"))
        if headers is None:
            return None
        options = {**found.options, **self._filled(found, delivery, call, own), "headers": headers}
        encoded = found.encoded or dumps((call.args, call.kwargs, found.embedded), serializer=options["serializer"])
        options["content_type"], options["content_encoding"], body = encoded
        return Message(delivery.id, body, options)

    def _filled(self, found: _Publishing, delivery: Delivery, call: Call, own: Mapping[str, Any]) -> dict[str, Any]:
        filled = {name: own[name] for name in found.twice}
        filled["correlation_id"] = delivery.id
        filled["reply_to"] = call.given.get("reply_to") or self._app.thread_oid
        filled["declare"] = list(found.declared)  # kombu may add to it
        return filled

    def request(self, delivery: Delivery) -> dict[str, Any]:
        """What a worker would have as the request of the delivery's message."""
        call = call_in(delivery)
        found: _Dict | None = self._pattern("request", delivery, call, self._ask) if self._know() else None
        made = None if found is None else found.fill(self._requested(delivery, call), call.given.get("headers"))
        return self._request(delivery) if made is None else made

    def _pattern(self, use: str, delivery: Delivery, call: Call, make: Callable[[Delivery], Any]) -> Any:
        shared = [each for each in delivery.options.items() if each[0] not in _EACH] if delivery.options else ()
        key = (use, delivery.name, delivery.kind, *shared)
        try:
            found = self._made.get(key)
        except TypeError:  # what somebody wrote there cannot be a key
            return None
        task = self._app.tasks.get(call.name)
        # A worker's tasks may be changed while it runs, their time limits by remote control for example.
        said = None if task is None else (extract_exec_options(task), task.ignore_result)
        if found is None or found[0] is not task or found[1] != said:
            fit = _SHARED.issuperset(name for name, _ in shared) and (said is None or said[0]["expires"] is None)
            found = self._made[key] = task, said, _or_none(make, delivery) if fit else None
        return found[2]

    def _own(self, delivery: Delivery, call: Call) -> dict[str, Any]:
        given, id = call.given, delivery.id
        return {
            "id": id,
            "root_id": given.get("root_id") or id,
            "parent_id": given.get("parent_id") or delivery.parent_id,
            "argsrepr": given.get("argsrepr") or (shown(tuple(call.args)) if self._shows else HIDDEN),
            "kwargsrepr": given.get("kwargsrepr") or (shown(call.kwargs) if self._shows else HIDDEN),
            ATTEMPT_HEADER: delivery.attempt,
            "eta": delivery.due.to_utc().isoformat(),
        }

    def _requested(self, delivery: Delivery, call: Call) -> dict[str, Any]:
        own, plain = self._own(delivery, call), delivery.kind == "task"
        own["correlation_id"] = delivery.id
        own["reply_to"] = call.given.get("reply_to") or ""
        own["args"], own["kwargs"] = (call.args, call.kwargs) if plain else ([], {})
        return own

    # -- how they are made

    def _listen(self, delivery: Delivery) -> _Publishing | None:
        bare, *examples = _examples(delivery)
        body, heard = self._heard(bare)
        own = self._own(bare, call_in(bare))
        found = _Publishing(
            _Dict(heard["headers"], own),
            {name: value for name, value in heard.items() if name not in own and name not in _FILLED},
            tuple(name for name in heard if name in own),
            tuple(heard["declare"] or ()),
            body[2],
        )
        for each in examples:
            call = call_in(each)
            own = self._own(each, call)
            filled = self._filled(found, each, call, own)
            filled["headers"] = found.headers.fill(own, call.given.get("headers"))
            args, kwargs = (call.args, call.kwargs) if each.kind == "task" else ((), {})
            body, heard = self._heard(each)
            heard = {name: value for name, value in heard.items() if name not in _UNSAID or value is not None}
            if heard != {**found.options, **filled} or body != (args or (), kwargs or {}, found.embedded):
                return None
        if delivery.kind == "task":
            return found
        return replace(found, encoded=dumps(((), {}, found.embedded), serializer=found.options["serializer"]))

    def _heard(self, delivery: Delivery) -> tuple[Any, dict[str, Any]]:
        name, options = self._full(delivery)
        listener = _Listener(self._app.connection_for_write())  # opens nothing
        self._send(name, producer=listener, **options)
        return listener.body, listener.options

    def _ask(self, delivery: Delivery) -> _Dict | None:
        bare, *examples = _examples(delivery)
        found = _Dict(self._request(bare), self._requested(bare, call_in(bare)))
        for each in examples:
            call = call_in(each)
            if found.fill(self._requested(each, call), call.given.get("headers")) != self._request(each):
                return None
        return found


_UNSAID: Final = ("timeout", "confirm_timeout")
"""Left out where they are None: who has the broker confirm it says how long that may take."""

_FILLED: Final = ("headers", "correlation_id", "reply_to", "declare", *_UNSAID)


def _or_none(make: Callable[[Delivery], Any], delivery: Delivery) -> Any:
    try:
        return make(delivery)
    except Exception as error:  # whoever publishes it in full will tell
        logger.debug("No pattern of %s: %s", delivery.name, error)
        return None


def _examples(delivery: Delivery) -> tuple[Delivery, Delivery, Delivery]:
    """Three rows of the delivery's pattern: one with nothing of its own, and two in which all is different."""
    shared = {name: value for name, value in delivery.options.items() if name not in _EACH}
    other, another = ScheduledFunctionId("an-example"), ScheduledFunctionId("another-example")
    said = {name: f"the {name}" for name in ("argsrepr", "kwargsrepr", "parent_id", "reply_to", "root_id")}
    options = {**shared, **said, "args": [1, "a"], "headers": {"an-example": True}}
    bare = replace(delivery, options=shared)
    return (
        bare,
        replace(bare, id=other, args={}, due=bare.due + Duration.days(1), attempt=bare.attempt + 1, parent_id=other),
        replace(bare, id=another, args={"b": [2]}, attempt=bare.attempt + 2, options=options, parent_id=None),
    )


def _is_of(module: Any, function: Any) -> bool:
    """Whether the module itself defines the function: nobody has put another there."""
    return type(function) is FunctionType and function.__globals__ is vars(module)
