"""`confect.scheduler.aio` in Django's async views and tests: on Django's own thread, so in its transaction."""

from asgiref.sync import sync_to_async
from django.db import transaction
from django.test import TestCase, TransactionTestCase
from webshop.celery import confect

from accounts.models import Account
from accounts.tasks import Text, remind
from confect_celery import Duration

ARGS = Text(account_id="a")


class InATestCase(TestCase):
    async def test_it_is_a_part_of_the_tests_transaction(self) -> None:
        await Account.objects.acreate(email="a@b.c")
        id = await confect.scheduler.aio.run_after(Duration.hours(1), remind, ARGS)
        assert (await confect.scheduler.aio.get(id)).state.kind == "pending"
        assert await confect.scheduler.aio.cancel(id)

    def test_nothing_of_it_is_left(self) -> None:
        with confect.reader() as db:
            assert db.table("_scheduled_functions").count() == 0


class WithCommits(TransactionTestCase):
    async def test_django_wraps_what_must_be_one_transaction(self) -> None:
        def both() -> str:
            with transaction.atomic():
                Account.objects.create(email="a@b.c")
                id = confect.scheduler.run_after(Duration.hours(1), remind, ARGS)
                transaction.set_rollback(True)
            return id

        id = await sync_to_async(both)()
        assert await confect.scheduler.aio.get(id) is None
