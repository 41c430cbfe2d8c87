"""`db.table("…")` over the project's models: the same values as through the ORM, both ways."""

import datetime as dt
import uuid
from decimal import Decimal

from django.db import connection
from django.test import TestCase
from webshop.celery import confect

from accounts.models import Account, Reminder
from confect_celery import DateTime, Duration, NotFound, UnknownTable

WHEN = dt.datetime(2030, 1, 1, 12, 30, tzinfo=dt.UTC)
VALUES = {
    "email": "a@b.c",
    "plan": "gold",
    "note": "n",
    "verified": True,
    "balance": Decimal("12.30"),
    "profile": {"a": [1, {"b": None}], "ü": "é"},
    "trial": dt.timedelta(days=2, microseconds=3),
    "trial_end": WHEN,
    "born": dt.date(1999, 12, 31),
    "wake_at": dt.time(7, 15, 30),
}


class Tables(TestCase):
    def test_what_the_orm_wrote_is_read(self) -> None:
        account = Account.objects.create(**VALUES)
        account.refresh_from_db()
        with confect.reader() as db:
            found = db.table("accounts_account").get(account.pk)
            assert db.table("accounts_account").get(str(account.pk)).email == "a@b.c"
        assert found.id == account.pk
        assert found.created == DateTime.of(account.created)
        assert found.trial_end == DateTime.of(WHEN)
        assert found.trial == Duration.of(VALUES["trial"])
        for name in VALUES.keys() - {"trial_end", "trial"}:
            assert getattr(found, name) == VALUES[name], name

    def test_what_was_inserted_is_read_by_the_orm(self) -> None:
        with confect.writer() as db:
            id = db.table("accounts_account").insert(VALUES)
        account = Account.objects.get(pk=id)
        for name, value in VALUES.items():
            assert getattr(account, name) == value, name
        assert abs(account.created - dt.datetime.now(dt.UTC)) < dt.timedelta(minutes=1)

    def test_djangos_defaults_are_filled_in(self) -> None:
        with confect.writer() as db:
            id = db.table("accounts_account").insert({"email": "a@b.c"})
            reminder = db.table("reminders").insert({"account_id": str(id), "text": "t"})
            db.table("reminders").patch(reminder, {"account_id": id})
        account = Account.objects.get()
        assert isinstance(id, uuid.UUID) and account.pk == id
        assert (account.plan, account.note, account.verified, account.balance) == ("free", "", False, 0)
        assert account.profile == {} and account.trial is None
        assert Reminder.objects.get(pk=reminder).account == account

    def test_filters_meet_what_the_orm_wrote(self) -> None:
        account = Account.objects.create(**VALUES)
        Account.objects.create(email="other", trial_end=WHEN + dt.timedelta(microseconds=1))
        with confect.reader() as db:
            table = db.table("accounts_account")
            for name, value in VALUES.items():
                if name not in ("profile", "trial"):
                    found = table.filter(lambda q, name=name, value=value: q.eq(q.field(name), value)).collect()
                    assert [row.id for row in found] == [account.pk], name
            later = table.filter(lambda q: q.gt(q.field("trial_end"), DateTime.of(WHEN))).collect()
            assert [row.email for row in later] == ["other"]
            of_id = table.filter(lambda q: q.eq(q.field("id"), str(account.pk)))
            assert of_id.count() == 1
            inside = table.filter(lambda q: q.eq(q.field("profile.ü"), "é"))
            assert [row.id for row in inside.collect()] == [account.pk]
            ordered = table.order("asc", by="trial_end").collect()
            assert [row.email for row in ordered] == ["a@b.c", "other"]

    def test_patch_and_delete(self) -> None:
        account = Account.objects.create(**VALUES)
        with confect.writer() as db:
            db.table("accounts_account").patch(account.pk, {"verified": False, "trial_end": DateTime.of(WHEN)})
        account.refresh_from_db()
        assert account.verified is False and account.trial_end == WHEN
        with confect.writer() as db:
            db.table("accounts_account").delete(account.pk)
            with self.assertRaises(NotFound):
                db.table("accounts_account").get(account.pk)

    def test_a_scheduled_functions_args_are_a_field(self) -> None:
        from accounts.tasks import Text, remind

        id = confect.scheduler.run_after(Duration.hours(1), remind, Text(account_id="42"))
        with confect.reader() as db:
            table = db.table("_scheduled_functions")
            assert [row.id for row in table.filter(lambda q: q.eq(q.field("args.account_id"), "42")).collect()] == [id]

    def test_a_table_that_is_no_models(self) -> None:
        with connection.cursor() as cursor:
            cursor.execute("CREATE TEMPORARY TABLE loose (id integer primary key, label varchar(20))")
            cursor.execute("INSERT INTO loose VALUES (1, 'x')")
        with confect.reader() as db:
            with self.assertRaises(UnknownTable):
                db.table("nowhere")
            assert db.table("django_content_type").count() > 0
