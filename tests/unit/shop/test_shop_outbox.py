"""Mails: ordered exactly once by mutations, delivered at most once by an action."""

from __future__ import annotations

from confect_celery import DateTime, Duration, StateKind
from confect_celery.testing import Harness
from tasks import outbox, reports, trials, users
from tasks.services import MailGateway


class Unreachable(MailGateway):
    """A provider that is down."""

    def deliver(self, mail_id: str, to: str, subject: str, body: str) -> None:
        raise ConnectionError("no route to the provider")


def end_a_trial(shop: Harness, ada: str) -> None:
    shop.confect.run_mutation(trials.start, users.UserRef(user_id=ada))
    shop.advance(Duration.days(14))
    assert [row.name for row in shop.run_due()] == [trials.end.name]


def test_the_mutation_orders_and_the_action_delivers(
    shop: Harness, postbox: list[tuple[str, str]], ada: str, now: DateTime
) -> None:
    end_a_trial(shop, ada)
    assert postbox == []
    ordered = shop.assert_scheduled(outbox.deliver, at=now + Duration.days(14) + Duration.seconds(1))
    (ended,) = shop.scheduled(trials.end, state="success")
    assert ordered.parent_id == ended.id
    shop.run_all()
    assert postbox == [("ada@example.org", "Your trial has ended")]
    with shop.confect.reader() as db:
        assert db.table("outbox").get(ordered.args["mail_id"]).sent_at == shop.clock.now()


def test_a_mail_whose_mutation_fails_was_never_ordered(shop: Harness, postbox: list[tuple[str, str]], ada: str) -> None:
    """The daily report of a user whose zone is no zone: the mail is ordered first, what follows fails."""
    with shop.confect.writer() as db:
        db.table("users").patch(ada, {"time_zone": "Europe/Atlantis"})
    shop.confect.scheduler.run_after(
        Duration.seconds(1), reports.daily, reports.Daily(user_id=ada, due_at=shop.clock.now())
    )
    (row,) = shop.run_all()
    assert row.state.kind is StateKind.FAILED
    assert postbox == []
    with shop.confect.reader() as db:
        assert db.table("reports").count() == 0
        assert db.table("outbox").count() == 0


def test_an_unreachable_provider_fails_the_delivery_and_keeps_the_mail(shop: Harness, ada: str) -> None:
    shop.provide(MailGateway, Unreachable())
    end_a_trial(shop, ada)
    (row,) = shop.run_all()
    assert row.state.kind is StateKind.FAILED
    assert row.state.error is not None
    assert (row.state.error.tag, row.state.error.message) == ("ConnectionError", "no route to the provider")
    with shop.confect.reader() as db:
        assert db.table("outbox").get(row.args["mail_id"]).sent_at is None


def test_a_mail_that_was_sent_is_not_sent_again(shop: Harness, postbox: list[tuple[str, str]], ada: str) -> None:
    end_a_trial(shop, ada)
    (delivered,) = shop.run_all()
    shop.confect.scheduler.run_after(Duration.seconds(1), outbox.deliver, delivered.args)
    shop.run_all()
    assert len(postbox) == 1
