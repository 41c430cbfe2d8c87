import uuid

from celery import Task, shared_task
from celery.exceptions import Ignore

from . import journal


class SmtpError(Exception):
    pass


class Counting(Task):
    """A base class of the shop's own, that minds its own business in the hooks."""

    abstract = True
    opened = 0

    def before_start(self, task_id, args, kwargs):
        type(self).opened += 1  # without super(), as shops do

    def on_failure(self, exc, task_id, args, kwargs, einfo):
        journal.write(f"on_failure {type(exc).__name__}")


@shared_task(base=Counting)
def send_email(to, subject="hello"):
    journal.write(f"mail {to} {subject}")
    return f"{to}/{subject}/{send_email.opened > 0}"


@shared_task(bind=True, autoretry_for=(SmtpError,), retry_backoff=1, retry_jitter=False, max_retries=3)
def send_flaky(self, to, failures):
    journal.write(f"flaky {to} {self.request.retries}")
    if self.request.retries < failures:
        raise SmtpError(to)
    return self.request.retries


@shared_task(bind=True, max_retries=5)
def send_later(self, to, countdown):
    journal.write(f"later {to} {self.request.retries}")
    if not self.request.retries:
        raise self.retry(countdown=countdown)
    return f"sent to {to}"


@shared_task(bind=True)
def send_if_wanted(self, to):
    journal.write(f"unwanted {to}")
    raise Ignore


@shared_task(expires=0.5)
def send_fresh(to):
    journal.write(f"fresh {to}")


@shared_task
def typed(when, number, amount, raw):
    assert isinstance(number, uuid.UUID) and raw == b"\x00\xff"
    return [when.isoformat(), type(amount).__name__, str(amount)]
