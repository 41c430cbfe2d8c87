"""What Celery sees: messages, the gate, the actors beside a worker. They meet only in the table."""

from confect_celery.runtime.ahead import PublishAhead
from confect_celery.runtime.control import confect_status
from confect_celery.runtime.dispatcher import Dispatcher, Outbox, Transport
from confect_celery.runtime.gate import Dropped, Failed, Gate, Invoker, Outcome, Postponed, Succeeded
from confect_celery.runtime.reconciler import Reconciler
from confect_celery.runtime.task import make_task
from confect_celery.runtime.transport import CeleryTransport
from confect_celery.runtime.worker_step import Actors, install

__all__ = [
    "Actors",
    "CeleryTransport",
    "Dispatcher",
    "Dropped",
    "Failed",
    "Gate",
    "Invoker",
    "Outbox",
    "Outcome",
    "Postponed",
    "PublishAhead",
    "Reconciler",
    "Succeeded",
    "Transport",
    "confect_status",
    "install",
    "make_task",
]
