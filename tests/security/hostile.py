"""Messages as nobody's Celery would write them."""

from __future__ import annotations

import json
import uuid
from typing import Any

from kombu import Connection, Producer

from confect_celery.runtime.messages import ATTEMPT_HEADER


class Hostile:
    """Writes whatever it is told into the queue `celery` of a broker."""

    def __init__(self, broker_url: str) -> None:
        self._connection = Connection(broker_url)
        self._producer = Producer(self._connection)

    def __enter__(self) -> Hostile:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.release()

    def task(
        self, name: Any, id: Any = None, attempt: Any = None, args: Any = (), kwargs: Any = None, **headers: Any
    ) -> str:
        """A well-formed message that claims to be of the row `id`; gives back its id."""
        id = str(uuid.uuid4()) if id is None else id
        said = {
            "lang": "py", "task": name, "id": id, "root_id": id, "parent_id": None, "group": None, "retries": 0,
            "eta": None, "expires": None, "timelimit": [None, None], "argsrepr": "()", "kwargsrepr": "{}",
            "origin": "hostile", **({} if attempt is None else {ATTEMPT_HEADER: attempt}), **headers,
        }  # fmt: skip
        nothing: dict[str, Any] = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
        self.raw(json.dumps([list(args), kwargs or {}, nothing]), said)
        return str(id)

    def raw(self, body: Any, headers: dict[str, Any], content_type: str = "application/json") -> None:
        """Anything at all."""
        self._producer.publish(
            body,
            exchange="celery",
            routing_key="celery",
            headers=headers,
            content_type=content_type,
            content_encoding="binary" if isinstance(body, bytes) else "utf-8",
            serializer=None,
            correlation_id=str(uuid.uuid4()),
        )
