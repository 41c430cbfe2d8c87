"""The listing of pending functions."""

from __future__ import annotations

import pytest

from confect_celery import Duration, InvalidArguments
from confect_celery.testing import Harness
from tasks.nested import Create, create
from tasks.pending import Listing, list_pending
from tasks.users import UserRef, send_verification_reminder


def schedule(shop: Harness, count: int) -> None:
    for n in range(count):
        shop.confect.scheduler.run_after(
            Duration.hours(count - n), send_verification_reminder, UserRef(user_id=f"u{count - n}")
        )


def test_nothing_pending(shop: Harness) -> None:
    page = shop.confect.run_query(list_pending, Listing())
    assert page.functions == []
    assert page.cursor is None


def test_the_next_due_comes_first(shop: Harness) -> None:
    schedule(shop, 3)
    page = shop.confect.run_query(list_pending, Listing())
    assert [function.args for function in page.functions] == [{"user_id": f"u{n}"} for n in (1, 2, 3)]
    assert [function.scheduled_time for function in page.functions] == [
        shop.clock.now() + Duration.hours(n) for n in (1, 2, 3)
    ]


def test_page_by_page(shop: Harness) -> None:
    schedule(shop, 5)
    seen: list[str] = []
    cursor, pages = None, 0
    while pages == 0 or cursor is not None:
        page = shop.confect.run_query(list_pending, Listing(size=2, cursor=cursor))
        seen += [function.args["user_id"] for function in page.functions]
        cursor, pages = page.cursor, pages + 1
    assert seen == ["u1", "u2", "u3", "u4", "u5"]
    assert pages == 3


def test_what_ran_or_was_cancelled_is_not_listed(shop: Harness) -> None:
    schedule(shop, 2)
    shop.confect.run_mutation(create, Create(title="Wash up", source="api"))
    shop.advance(Duration.minutes(5))
    shop.run_due()
    shop.confect.scheduler.cancel(shop.scheduled()[0].id)
    page = shop.confect.run_query(list_pending, Listing())
    assert [function.args for function in page.functions] == [{"user_id": "u2"}]


def test_a_page_has_a_bound(shop: Harness) -> None:
    with pytest.raises(InvalidArguments):
        shop.confect.run_query(list_pending, {"size": 1000})
