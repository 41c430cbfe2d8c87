"""The trial's end."""

from __future__ import annotations

from confect_celery.testing import Harness
from tasks.trials import TrialRef, end, start, subscribe
from tasks.users import UserRef


def begin(shop: Harness, user_id: str) -> TrialRef:
    return shop.confect.run_mutation(start, UserRef(user_id=user_id))


def status(shop: Harness, trial: TrialRef) -> str:
    with shop.confect.reader() as db:
        return str(db.table("trials").get(trial.trial_id).status)


def test_ends_and_tells_the_user(shop: Harness, postbox: list[tuple[str, str]], ada: str) -> None:
    trial = begin(shop, ada)
    assert status(shop, trial) == "active"
    shop.run_all()
    assert status(shop, trial) == "ended"
    assert postbox == [("ada@example.org", "Your trial has ended")]


def test_a_subscription_in_time_cancels_the_end(shop: Harness, postbox: list[tuple[str, str]], ada: str) -> None:
    trial = begin(shop, ada)
    assert shop.confect.run_mutation(subscribe, trial).in_time
    assert shop.scheduled(end) == []
    shop.run_all()
    assert status(shop, trial) == "subscribed"
    assert postbox == []


def test_a_late_subscription_is_told_so(shop: Harness, ada: str) -> None:
    trial = begin(shop, ada)
    shop.run_all()
    assert not shop.confect.run_mutation(subscribe, trial).in_time
    assert status(shop, trial) == "subscribed"
