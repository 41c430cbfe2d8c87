import os

from celery import Celery
from celery.schedules import crontab

from confect_celery import Confect

app = Celery("bookstore", set_as_current=True)
app.conf.update(
    broker_url=os.environ.get("BOOKSTORE_BROKER", "memory://"),
    result_backend=os.environ.get("BOOKSTORE_RESULTS", "cache+memory://"),
    broker_connection_retry_on_startup=True,
    worker_send_task_events=True,
    timezone="Europe/Paris",
    imports=["tests.legacy.bookstore.mail", "tests.legacy.bookstore.orders", "tests.legacy.bookstore.reports"],
    task_routes={"tests.legacy.bookstore.mail.*": {"queue": "mail"}},
    beat_schedule={
        "stock": {"task": "reports.stock", "schedule": 1.0, "options": {"countdown": 1}},
        "nightly": {"task": "reports.nightly", "schedule": crontab(hour=3, minute=0)},
        "sweep": {"task": "internal/stock/sweep", "schedule": 1.0, "args": ({"shelf": "A"},)},
    },
)
app.conf.update(
    confect_database_url=os.environ.get("BOOKSTORE_DATABASE", "sqlite://"),
    confect_capture=os.environ.get("BOOKSTORE_CAPTURE", "off"),
    confect_redelivery=5,
)
if os.environ.get("BOOKSTORE_QUORUM"):
    app.conf.task_default_queue_type = "quorum"
confect = Confect(app)
