"""The row exists if and only if Django's transaction committed, and its message goes out right after."""

from unittest import mock

from django.db import connection, transaction
from django.db.utils import OperationalError
from django.test import Client, TransactionTestCase
from webshop.celery import confect

from accounts.models import Account, Reminder
from accounts.tasks import Register, Text, register, register_two, remind, unverified
from confect_celery import Duration, ScheduledFunction
from confect_celery.errors import InvalidArguments
from confect_celery.testing import harness


class Unlucky(Exception):
    pass


def rows() -> list[ScheduledFunction]:
    with confect.reader() as db:
        return db.table("_scheduled_functions").collect()


def schedule(seconds: float = 3600, text: str = "x") -> str:
    return confect.scheduler.run_after(Duration.seconds(seconds), remind, Text(account_id="a", text=text))


class Transactions(TransactionTestCase):
    def tearDown(self) -> None:
        # Django flushes the tables of managed models only.
        with confect.store.database.transaction() as t:
            t.connection.execute(confect.store.table.delete())

    def test_a_row_is_there_after_the_commit(self) -> None:
        with transaction.atomic():
            id = schedule()
            assert confect.scheduler.get(id) is not None
        assert [row.id for row in rows()] == [id]

    def test_no_row_is_there_after_a_rollback(self) -> None:
        with self.assertRaises(Unlucky), transaction.atomic():
            schedule()
            raise Unlucky
        assert rows() == []

    def test_a_nested_atomic_that_rolls_back_takes_its_rows_and_its_messages_with_it(self) -> None:
        published: list[str] = []
        with confect.redirected(publish=lambda delivery: published.append(delivery.id)):
            with transaction.atomic():
                kept = schedule(0.5, "kept")
                with self.assertRaises(Unlucky), transaction.atomic():
                    schedule(0.5, "gone")
                    raise Unlucky
                with transaction.atomic():
                    also = schedule(0.5, "kept as well")
                assert published == []
            assert published == [kept, also]
        assert {row.id for row in rows()} == {kept, also}

    def test_a_row_that_is_far_off_is_not_published(self) -> None:
        published: list[str] = []
        with confect.redirected(publish=lambda delivery: published.append(delivery.id)):
            schedule(60)
            near = schedule(0.5)
        assert published == [near]

    def test_of_many_jobs_one_that_cannot_be_made_leaves_the_transaction_as_it_was(self) -> None:
        job = (Duration.hours(1), remind, Text(account_id="a", text="x"))
        with transaction.atomic():
            before = schedule()
            with self.assertRaises(InvalidArguments):
                confect.scheduler.run_many([*[job] * 2000, (Duration.hours(1), remind, {"text": 3})])
            after = schedule()
        assert {row.id for row in rows()} == {before, after}

    def test_a_broker_that_refuses_does_not_undo_the_commit(self) -> None:
        def refuse(_: object) -> None:
            raise ConnectionError("no broker")

        with confect.redirected(publish=refuse), self.assertLogs("django.db.backends.base", "ERROR"):
            id = schedule(0.5)
        assert [row.id for row in rows()] == [id]

    def test_cancelling_in_a_transaction_that_rolls_back_cancels_nothing(self) -> None:
        id = schedule()
        with self.assertRaises(Unlucky), transaction.atomic():
            assert confect.scheduler.cancel(id)
            raise Unlucky
        assert rows()[0].state.kind == "pending"

    def test_a_mutation_is_one_transaction_with_the_orm(self) -> None:
        confect.run_mutation(register, Register(email="a@b.c"))
        assert Account.objects.count() == 1 and len(rows()) == 1
        with mock.patch.object(type(confect.store.rows), "insert", side_effect=Unlucky), self.assertRaises(Unlucky):
            confect.run_mutation(register, Register(email="d@e.f"))
        assert Account.objects.count() == 1 and len(rows()) == 1

    def test_a_mutation_inside_a_mutation_may_fail_alone(self) -> None:
        confect.run_mutation(register_two, Register(email="a@b.c"))
        assert Account.objects.count() == 1 and len(rows()) == 1
        assert confect.run_query(unverified) == ["a@b.c"]

    def test_a_mutation_inside_atomic_commits_with_it(self) -> None:
        with self.assertRaises(Unlucky), transaction.atomic():
            confect.run_mutation(register, Register(email="a@b.c"))
            assert Account.objects.count() == 1
            raise Unlucky
        assert Account.objects.count() == 0 and rows() == []

    def test_a_view_under_atomic_requests_is_one_transaction(self) -> None:
        answer = Client().get("/register/", {"email": "a@b.c"})
        assert [row.id for row in rows()] == [answer.content.decode()]
        with self.assertRaisesMessage(RuntimeError, "after the mutation"):
            Client().get("/register-and-fail/", {"email": "d@e.f"})
        assert len(rows()) == 1 and Account.objects.count() == 1

    def test_a_transient_error_of_djangos_is_retried_and_inside_atomic_it_is_not(self) -> None:
        calls: list[int] = []
        error = {"sqlite": Exception("database is locked"), "mysql": Exception(1213, "Deadlock found")}.get(
            connection.vendor, Exception("deadlock detected")
        )
        error.sqlstate = "40P01"  # type: ignore[attr-defined]

        def failing(account: Account, **options: object) -> None:
            calls.append(1)
            if len(calls) < 3:
                raise OperationalError(*error.args) from error

        with (
            mock.patch.object(Account, "save", failing),
            mock.patch("confect_celery.store.database._FIRST_BACKOFF_SECONDS", 0.001),
        ):
            confect.run_mutation(register, Register(email="a@b.c"))
            assert len(calls) == 3
            calls.clear()
            with self.assertRaises(OperationalError), transaction.atomic():
                confect.run_mutation(register, Register(email="a@b.c"))
            assert len(calls) == 1
        assert len(rows()) == 1

    def test_a_hook_of_the_shops_that_fails_after_the_commit_does_not_repeat_the_mutation(self) -> None:
        def fail() -> None:
            raise OperationalError("x") from error

        error = Exception("database is locked")
        save = Account.save

        def saving(account: Account, **options: object) -> None:
            save(account, **options)
            transaction.on_commit(fail)

        with mock.patch.object(Account, "save", saving), self.assertRaises(OperationalError):
            confect.run_mutation(register, Register(email="a@b.c"))
        assert Account.objects.count() == 1

    def test_the_harness_on_transactions_that_commit(self) -> None:
        with harness(confect) as shop:
            confect.run_mutation(register, Register(email="a@b.c", delay=1))
            shop.advance(Duration.seconds(1))
            assert [row.state.kind for row in shop.run_due()] == ["success"]
        assert Reminder.objects.count() == 1
