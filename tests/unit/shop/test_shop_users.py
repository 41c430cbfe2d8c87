"""The verification reminder."""

from __future__ import annotations

import pytest

from confect_celery import Duration, StateKind
from confect_celery.testing import Harness
from tasks.services import Mailer
from tasks.users import EmailTaken, Register, UserRef, register, send_verification_reminder, verify

DAY = Duration.hours(24)


def sign_up(shop: Harness, email: str) -> str:
    return shop.confect.run_mutation(register, Register(email=email)).user_id


def test_reminds_once_after_a_day(shop: Harness, postbox: list[tuple[str, str]]) -> None:
    sign_up(shop, "bo@example.org")
    shop.run_all()
    assert postbox == [("bo@example.org", "Please verify your email")]


def test_verification_takes_back_this_users_reminder_only(shop: Harness, postbox: list[tuple[str, str]]) -> None:
    bo, cy = sign_up(shop, "bo@example.org"), sign_up(shop, "cy@example.org")
    assert shop.confect.run_mutation(verify, UserRef(user_id=bo)).cancelled == 1
    assert [row.args for row in shop.scheduled(send_verification_reminder, state="canceled")] == [{"user_id": bo}]
    shop.assert_scheduled(send_verification_reminder, UserRef(user_id=cy))
    shop.run_all()
    assert [to for to, _ in postbox] == ["cy@example.org"]


def test_verification_after_the_reminder_takes_nothing_back(shop: Harness) -> None:
    bo = sign_up(shop, "bo@example.org")
    shop.run_all()
    assert shop.confect.run_mutation(verify, UserRef(user_id=bo)).cancelled == 0


def test_the_reminder_looks_again(shop: Harness, postbox: list[tuple[str, str]]) -> None:
    bo = sign_up(shop, "bo@example.org")
    with shop.confect.writer() as db:
        db.table("users").patch(bo, {"verified": True})
    shop.advance(DAY)
    assert [row.state.kind for row in shop.run_due()] == [StateKind.SUCCESS]
    assert shop.run_all() == []
    assert postbox == []


def test_the_function_is_still_a_function(shop: Harness) -> None:
    """In a unit test call it, and hand it what it asks for."""

    class Letters(Mailer):
        def __init__(self) -> None:
            self.to: list[str] = []

        def send(self, to: str, subject: str, body: str = "") -> str:
            self.to.append(to)
            return "m1"

    bo, letters = sign_up(shop, "bo@example.org"), Letters()
    with shop.confect.reader() as db:
        send_verification_reminder(UserRef(user_id=bo), db, letters)
    assert letters.to == ["bo@example.org"]


def test_a_failed_registration_leaves_no_reminder(shop: Harness) -> None:
    sign_up(shop, "bo@example.org")
    with pytest.raises(EmailTaken) as caught:
        sign_up(shop, "bo@example.org")
    assert caught.value.email == "bo@example.org"
    assert len(shop.scheduled(send_verification_reminder)) == 1


def test_a_reminder_without_its_user_fails_and_orders_no_mail(shop: Harness, postbox: list[tuple[str, str]]) -> None:
    bo = sign_up(shop, "bo@example.org")
    with shop.confect.writer() as db:
        db.table("users").delete(bo)
    shop.advance(DAY)
    (row,) = shop.run_due()
    assert row.state.kind is StateKind.FAILED
    assert row.state.error is not None
    assert row.state.error.tag == "NotFound"
    assert shop.run_all() == []
    assert postbox == []
