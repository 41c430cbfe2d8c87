"""What Celery sees: messages, the gate, the actors beside a worker. They meet only in the table."""

from confect_celery.runtime.announce import Announcer, Events, Silent
from confect_celery.runtime.brevity import Brevity
from confect_celery.runtime.capture import Capture, check_modes
from confect_celery.runtime.control import confect_status
from confect_celery.runtime.cron_loop import CronLoop
from confect_celery.runtime.dispatcher import Dispatcher
from confect_celery.runtime.gate import Dropped, Failed, Gate, Invoker, Outcome, Postponed, Succeeded
from confect_celery.runtime.messages import call_of
from confect_celery.runtime.outbox import Outbox, Transport
from confect_celery.runtime.reconciler import Reconciler
from confect_celery.runtime.task import make_task
from confect_celery.runtime.transport import CeleryTransport
from confect_celery.runtime.worker_step import Actors, install

__all__ = [
    "Actors",
    "Announcer",
    "Brevity",
    "Capture",
    "CeleryTransport",
    "CronLoop",
    "Dispatcher",
    "Dropped",
    "Events",
    "Failed",
    "Gate",
    "Invoker",
    "Outbox",
    "Outcome",
    "Postponed",
    "Reconciler",
    "Silent",
    "Succeeded",
    "Transport",
    "call_of",
    "check_modes",
    "confect_status",
    "install",
    "make_task",
]
