"""Sessions end exactly when they expire."""

from __future__ import annotations

from confect_celery import Duration
from confect_celery.testing import Harness
from tasks.sessions import Session, SessionRef, clean_up, log_in, log_out, prolong
from tasks.users import UserRef


def begin(shop: Harness, user_id: str) -> Session:
    return shop.confect.run_mutation(log_in, UserRef(user_id=user_id))


def sessions(shop: Harness) -> int:
    with shop.confect.reader() as db:
        return db.table("sessions").count()


def test_is_deleted_at_its_expiry(shop: Harness, ada: str) -> None:
    session = begin(shop, ada)
    shop.clock.set(session.expires_at - Duration.millis(1))
    shop.run_due()
    assert sessions(shop) == 1
    shop.clock.set(session.expires_at)
    shop.run_due()
    assert sessions(shop) == 0


def test_prolonging_moves_the_same_function(shop: Harness, ada: str) -> None:
    session = begin(shop, ada)
    before = shop.assert_scheduled(clean_up)
    later = session.expires_at + Duration.hours(1)
    shop.confect.run_mutation(prolong, Session(session_id=session.session_id, expires_at=later))
    after = shop.assert_scheduled(clean_up, SessionRef(session_id=session.session_id), at=later)
    assert after.id == before.id
    shop.clock.set(session.expires_at)
    assert shop.run_due() == []
    shop.clock.set(later)
    assert len(shop.run_due()) == 1
    assert sessions(shop) == 0


def test_logging_out_cancels_by_deleting_the_row(shop: Harness, ada: str) -> None:
    one, other = begin(shop, ada), begin(shop, ada)
    shop.confect.run_mutation(log_out, SessionRef(session_id=one.session_id))
    assert [row.args for row in shop.scheduled(clean_up, state="canceled")] == [{"session_id": one.session_id}]
    shop.assert_scheduled(clean_up, SessionRef(session_id=other.session_id))
    assert sessions(shop) == 1


def test_logging_out_after_the_expiry_is_nothing(shop: Harness, ada: str) -> None:
    session = begin(shop, ada)
    shop.run_all()
    shop.confect.run_mutation(log_out, SessionRef(session_id=session.session_id))
    assert sessions(shop) == 0
