"""django-celery-beat: one-off tasks on a ClockedSchedule in PostgreSQL; beat sends, two prefork children run them."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from typing import Any

from bench.alternatives.interface import (
    WARM_UP,
    Plan,
    Rates,
    Servers,
    directory_of_runs,
    drain_by,
    in_an_hour,
    lacks,
    note_run,
    rate_of,
    rate_of_bulk,
)

NAME = "django-celery-beat"
QUEUE, TASK = "bench-peers-django", "bench.alternatives.django_celery_beat.note"


def missing() -> str | None:
    """Why it cannot run here."""
    return lacks("django-celery-beat") or lacks("redis")


def _app(servers: Servers) -> Any:
    import django
    import sqlalchemy as sa
    from celery import Celery
    from django.conf import settings

    url = sa.make_url(servers.postgres_url)
    database = {"ENGINE": "django.db.backends.postgresql", "NAME": url.database, "USER": url.username or ""}
    database |= {"PASSWORD": url.password or "", "HOST": url.host or "", "PORT": str(url.port or "")}
    settings.configure(DATABASES={"default": database}, INSTALLED_APPS=["django_celery_beat"], USE_TZ=True)
    django.setup()
    app: Any = Celery("peers", broker=servers.redis_url)
    app.conf.update(task_default_queue=QUEUE, task_ignore_result=True, timezone="UTC", beat_max_loop_interval=1)
    app.task(name=TASK)(note_run)
    return app


def measure(servers: Servers, jobs: int) -> Rates:
    """Create and delete through the ORM, Django's bulk_create, and the drain of due tasks by beat and a worker."""
    app = _app(servers)
    from django.core.management import call_command
    from django.db import transaction
    from django_celery_beat.models import ClockedSchedule, PeriodicTask, PeriodicTasks

    call_command("migrate", verbosity=0)
    rates: Rates = {}

    def schedule(kind: str, number: int, at: datetime) -> Any:
        with transaction.atomic():
            clock = ClockedSchedule.objects.create(clocked_time=at)
            return PeriodicTask.objects.create(
                name=f"{kind}-{number}", task=TASK, args=json.dumps([number]), clocked=clock, one_off=True
            )

    def schedule_many(kind: str, at: datetime) -> None:
        with transaction.atomic():
            clocks = ClockedSchedule.objects.bulk_create(ClockedSchedule(clocked_time=at) for _ in range(jobs))
            PeriodicTask.objects.bulk_create(
                PeriodicTask(
                    name=f"{kind}-{number}", task=TASK, args=json.dumps([number]), clocked=clocks[number], one_off=True
                )
                for number in range(jobs)
            )
            PeriodicTasks.update_changed()  # its documentation asks for it: bulk_create sends no signals

    try:
        with directory_of_runs() as runs:
            due = in_an_hour()
            for number in range(WARM_UP):
                schedule("warm", number, due)
            entries: list[Any] = []
            rates["schedule"] = rate_of(lambda number: entries.append(schedule("far", number, due)), jobs)
            rates["cancel"] = rate_of(lambda number: entries[number].delete(), jobs)
            schedule_many("due", datetime.now(UTC))
            command = ["-m", "bench.alternatives.django_celery_beat", servers.postgres_url, servers.redis_url]
            rates["drain"] = drain_by([[*command, "worker"], [*command, "beat"]], jobs, runs)
            rates["schedule_many"] = rate_of_bulk(lambda: schedule_many("many", due), jobs)
    finally:
        with app.connection_for_write() as connection:
            connection.default_channel.queue_purge(QUEUE)
    return rates


def lags(servers: Servers, plan: Plan) -> Rates:
    """By Django's bulk_create: beat reads all of its table again after each change."""
    app = _app(servers)
    from django.core.management import call_command
    from django.db import transaction
    from django_celery_beat.models import ClockedSchedule, PeriodicTask, PeriodicTasks

    call_command("migrate", verbosity=0)

    def schedule(due: list[datetime]) -> None:
        with transaction.atomic():
            clocks = ClockedSchedule.objects.bulk_create(ClockedSchedule(clocked_time=at) for at in due)
            PeriodicTask.objects.bulk_create(
                PeriodicTask(
                    name=f"lag-{number}-{clock.pk}", task=TASK, args=json.dumps([number]), clocked=clock, one_off=True
                )
                for number, clock in enumerate(clocks)
            )
            PeriodicTasks.update_changed()

    command = ["-m", "bench.alternatives.django_celery_beat", servers.postgres_url, servers.redis_url]
    try:
        return plan.lags([[*command, "worker"], [*command, "beat"]], schedule)
    finally:
        with app.connection_for_write() as connection:
            connection.default_channel.queue_purge(QUEUE)


def serve(postgres_url: str, redis_url: str, part: str) -> None:
    """The worker's or beat's process."""
    app = _app(Servers(postgres_url, redis_url))
    if part == "worker":
        app.worker_main(["worker", "-P", "prefork", "-c", "2", "-l", "WARNING"])
    else:
        scheduler = "django_celery_beat.schedulers:DatabaseScheduler"
        app.start(["beat", "-S", scheduler, "-l", "WARNING", "--pidfile="])


if __name__ == "__main__":
    serve(*sys.argv[1:])
