"""More than one database: each alias has its own table and its own transactions."""

from django.db import transaction
from django.test import TestCase, TransactionTestCase
from webshop.celery import confect

from accounts.models import Account
from accounts.tasks import Register, Text, register, remind
from confect_celery import Duration, InvalidSettings
from confect_celery.contrib.django.database import DjangoDatabase
from confect_celery.contrib.django.models import ScheduledFunction
from confect_celery.testing import harness

ARGS = Text(account_id="a")


class Unlucky(Exception):
    pass


class OtherDatabase(TransactionTestCase):
    databases = {"default", "other"}

    def tearDown(self) -> None:
        for alias in self.databases:
            with harness(confect, f"django://{alias}"), confect.store.database.transaction() as t:
                t.connection.execute(confect.store.table.delete())

    def test_the_row_goes_with_the_transaction_of_its_own_alias(self) -> None:
        with harness(confect, "django://other") as shop:
            with transaction.atomic(using="default"):
                confect.scheduler.run_after(Duration.hours(1), remind, ARGS)
                transaction.set_rollback(True)
            assert len(shop.scheduled()) == 1
            with self.assertRaises(Unlucky), transaction.atomic(using="other"):
                confect.scheduler.run_after(Duration.hours(1), remind, ARGS)
                raise Unlucky
            assert len(shop.scheduled()) == 1
        assert ScheduledFunction.objects.count() == 0
        assert ScheduledFunction.objects.using("other").count() == 1

    def test_a_mutation_is_atomic_in_the_alias_of_the_table_alone(self) -> None:
        with harness(confect, "django://other") as shop:
            confect.run_mutation(register, Register(email="a@b.c"))
            assert len(shop.scheduled()) == 1
        assert Account.objects.using("default").count() == 1


class BothInATestCase(TestCase):
    databases = {"default", "other"}

    def test_both_are_tested_in_transactions(self) -> None:
        with harness(confect, "django://other") as shop:
            confect.scheduler.run_after(Duration.seconds(1), remind, ARGS)
            shop.advance(Duration.seconds(1))
            (row,) = shop.run_due()
            assert row.state.kind == "failed" and row.state.error.tag == "ValidationError", row.state

    def test_an_alias_that_is_not_there_is_told(self) -> None:
        with self.assertRaisesMessage(InvalidSettings, "no 'elsewhere' in DATABASES"):
            DjangoDatabase("django://elsewhere")


class OneDatabase(TestCase):
    def test_djangos_guard_against_undeclared_databases_holds(self) -> None:
        with self.assertRaisesMessage(Exception, "Database"), harness(confect, "django://other"):
            confect.scheduler.run_after(Duration.hours(1), remind, ARGS)
