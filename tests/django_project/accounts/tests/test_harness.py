"""Inside Django's TestCase, whose transaction never commits, a shop is tested with the harness."""

from django.db import transaction
from django.test import TestCase
from webshop.celery import confect

from accounts.models import Account, Reminder
from accounts.tasks import Register, Text, call_out, plain, register, remind, remind_and_fail, remind_every_way
from confect_celery import Duration
from confect_celery.testing import harness


class Harness(TestCase):
    def setUp(self) -> None:
        self.shop = self.enterContext(harness(confect))
        self.account = Account.objects.create(email="a@b.c")
        self.args = Text(account_id=str(self.account.pk))

    def test_the_reminder_comes_after_a_day(self) -> None:
        id = confect.run_mutation(register, Register(email="d@e.f"))
        self.shop.assert_scheduled(remind, {"account_id": id, "text": "Please verify your email", "seconds": 0})
        self.shop.advance(Duration.hours(23))
        assert self.shop.run_due() == []
        self.shop.advance(Duration.hours(1))
        assert [row.state.kind for row in self.shop.run_due()] == ["success"]
        assert str(Reminder.objects.get().account_id) == id

    def test_what_is_nearly_due_comes_too(self) -> None:
        """Its message would go out after a commit, and there is none."""
        confect.scheduler.run_after(Duration.millis(500), remind, self.args)
        with transaction.atomic():
            confect.scheduler.run_after(Duration.millis(500), remind, self.args)
        self.shop.advance(Duration.seconds(1))
        assert len(self.shop.run_due()) == 2

    def test_a_mutation_that_fails_leaves_nothing_but_its_row(self) -> None:
        id = confect.scheduler.run_after(Duration.hours(1), remind_and_fail, self.args)
        (row,) = self.shop.run_all()
        assert row.id == id and row.state.kind == "failed" and row.state.error.tag == "Refused"
        assert Reminder.objects.count() == 0

    def test_every_way_to_the_database_is_one_transaction(self) -> None:
        confect.scheduler.run_after(Duration.hours(1), remind_every_way, self.args)
        (row,) = self.shop.run_all()
        assert row.state.kind == "success", row.state.error
        assert Reminder.objects.count() == 4
        confect.scheduler.run_after(Duration.hours(1), remind_every_way, self.args.model_copy(update={"text": "fail"}))
        Reminder.objects.all().delete()
        (row,) = self.shop.run_all()
        assert row.state.kind == "failed" and row.state.error.tag == "Refused", row.state.error
        assert Reminder.objects.count() == 0

    def test_an_action(self) -> None:
        confect.scheduler.run_after(Duration.hours(1), call_out, self.args)
        ran = self.shop.run_all()
        assert [(row.kind, row.state.kind) for row in ran] == [("action", "success"), ("mutation", "success")]
        assert ran[1].parent_id == ran[0].id
        assert [reminder.text for reminder in Reminder.objects.order_by("id")] == [self.args.text, "second"]

    def test_cancelling(self) -> None:
        id = confect.scheduler.run_after(Duration.hours(1), remind, self.args)
        assert confect.scheduler.cancel(id) and not confect.scheduler.cancel(id)
        assert self.shop.run_all() == []

    def test_a_plain_task_is_scheduled(self) -> None:
        confect.scheduler.run_after(Duration.hours(1), plain, {"account_id": str(self.account.pk)})
        (row,) = self.shop.scheduled()
        assert (row.name, row.kind) == ("accounts.tasks.plain", "task")

    def test_each_test_begins_with_an_empty_table(self) -> None:
        assert self.shop.scheduled(state=None) == []
