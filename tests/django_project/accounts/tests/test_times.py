"""Times are the same instants by Confect and by Django, whatever USE_TZ and the databases' TIME_ZONE say."""

import datetime as dt

from django.conf import settings
from django.db import connection
from django.test import TestCase
from django.utils import timezone
from webshop.celery import confect

from accounts.models import Account
from accounts.tasks import Text, remind
from confect_celery import DateTime
from confect_celery.contrib.django.models import ScheduledFunction
from confect_celery.testing import harness

WHEN = DateTime.parse("2030-07-01T12:30:00.000001Z")


def as_django(when: DateTime) -> dt.datetime:
    """As Django code of this project would have it."""
    aware = when.to_utc()
    return aware if settings.USE_TZ else timezone.make_naive(aware, timezone.get_default_timezone())


class Times(TestCase):
    def setUp(self) -> None:
        self.shop = self.enterContext(harness(confect, now=DateTime.parse("2030-01-01T00:00:00Z")))

    def test_of_the_model(self) -> None:
        id = confect.scheduler.run_at(WHEN, remind, Text(account_id="a"))
        assert confect.scheduler.get(id).scheduled_time == WHEN
        assert ScheduledFunction.objects.get().scheduled_time == as_django(WHEN)
        assert ScheduledFunction.objects.filter(scheduled_time=as_django(WHEN)).count() == 1
        moment = dt.timedelta(microseconds=1)
        assert ScheduledFunction.objects.filter(scheduled_time__lt=as_django(WHEN)).count() == 0
        assert ScheduledFunction.objects.filter(scheduled_time__lt=as_django(WHEN) + moment).count() == 1
        assert ScheduledFunction.objects.filter(scheduled_time__range=(as_django(WHEN), as_django(WHEN))).exists()

    def test_of_the_projects_models(self) -> None:
        account = Account.objects.create(email="a", trial_end=as_django(WHEN))
        with confect.writer() as db:
            table = db.table("accounts_account")
            assert table.get(account.pk).trial_end == WHEN
            assert table.filter(lambda q: q.eq(q.field("trial_end"), WHEN)).count() == 1
            other = table.insert({"email": "b", "trial_end": WHEN})
        assert Account.objects.get(pk=other).trial_end == as_django(WHEN)
        assert Account.objects.filter(trial_end=as_django(WHEN)).count() == 2
        created = timezone.now() - Account.objects.get(pk=other).created
        assert abs(created) < dt.timedelta(minutes=1), (created, connection.timezone)
