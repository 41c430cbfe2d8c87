"""What all examples have in common: each is scheduled in its own way, listed, cancelled, and run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from confect_celery import DateTime, Duration, FunctionRef, StateKind
from confect_celery.testing import Harness
from tasks import nested, pending, reports, retries, sessions, trials, users, webhooks


@dataclass(frozen=True)
class Example:
    """A call that schedules `function` to run `after` the clock's time, with arguments among which are `args`."""

    call: Callable[[Harness, str], object]
    function: FunctionRef[Any, Any]
    after: Duration
    args: dict[str, Any]

    def __str__(self) -> str:
        return self.function.name


MARCH_8 = DateTime.parse("2026-03-08T12:00:00Z")

EXAMPLES = [
    Example(
        lambda shop, _: shop.confect.run_mutation(users.register, users.Register(email="bo@example.org")),
        users.send_verification_reminder,
        Duration.hours(24),
        {},
    ),
    Example(
        lambda shop, ada: shop.confect.run_mutation(trials.start, users.UserRef(user_id=ada)),
        trials.end,
        Duration.days(14),
        {},
    ),
    Example(
        lambda shop, _: shop.confect.run_mutation(retries.order, retries.Order(cents=999)),
        retries.charge,
        Duration.seconds(1),
        {"cents": 999, "attempt": 0},
    ),
    Example(
        lambda shop, ada: shop.confect.run_mutation(sessions.log_in, users.UserRef(user_id=ada)),
        sessions.clean_up,
        Duration.hours(8),
        {},
    ),
    Example(
        lambda shop, _: shop.confect.run_action(
            webhooks.receive,
            webhooks.Webhook(payload={"id": "evt_1", "kind": "payment.paid", "data": {"payment_id": "p1"}}),
        ),
        webhooks.process,
        Duration.seconds(30),
        {"event_id": "evt_1"},
    ),
    Example(
        lambda shop, _: shop.confect.run_mutation(nested.create, nested.Create(title="Wash up", source="api")),
        nested.process,
        Duration.minutes(5),
        {"priority": "normal", "metadata": {"source": "api"}},
    ),
    Example(
        lambda shop, _: shop.confect.run_mutation(reports.start_monthly, reports.Monthly(first=MARCH_8)),
        reports.monthly,
        Duration.days(7) + Duration.hours(2),
        {"number": 0},
    ),
    Example(
        lambda shop, ada: shop.confect.run_mutation(reports.start_daily, reports.StartDaily(user_id=ada)),
        reports.daily,
        Duration.hours(22),  # from 11:00 in Paris until 9:00 tomorrow
        {},
    ),
]

every_example = pytest.mark.parametrize("example", EXAMPLES, ids=str)


@every_example
def test_is_scheduled(example: Example, shop: Harness, ada: str, now: DateTime) -> None:
    example.call(shop, ada)
    row = shop.assert_scheduled(example.function, at=now + example.after)
    assert example.args.items() <= row.args.items()
    assert row.state.kind is StateKind.PENDING
    assert row.creation_time == now
    assert row.completed_time is None


@every_example
def test_is_listed(example: Example, shop: Harness, ada: str) -> None:
    example.call(shop, ada)
    row = shop.assert_scheduled(example.function)
    page = shop.confect.run_query(pending.list_pending, pending.Listing())
    assert page.functions == [
        pending.PendingFunction(id=row.id, name=row.name, scheduled_time=row.scheduled_time, args=row.args)
    ]


@every_example
def test_is_cancelled(example: Example, shop: Harness, ada: str) -> None:
    example.call(shop, ada)
    id = shop.assert_scheduled(example.function).id
    assert shop.confect.scheduler.cancel(id)
    assert not shop.confect.scheduler.cancel(id)
    shop.advance(Duration.days(30))
    assert shop.run_due() == []
    row = shop.confect.scheduler.get(id)
    assert row is not None
    assert row.state.kind is StateKind.CANCELED


@every_example
def test_does_not_run_early(example: Example, shop: Harness, ada: str) -> None:
    example.call(shop, ada)
    shop.advance(example.after - Duration.millis(1))
    assert shop.run_due() == []
    shop.assert_scheduled(example.function)


@every_example
def test_runs_when_due(example: Example, shop: Harness, ada: str) -> None:
    if example.function is webhooks.process:
        with shop.confect.writer() as db:
            db.table("payments").insert({"id": "p1", "cents": 1})
    example.call(shop, ada)
    id = shop.assert_scheduled(example.function).id
    shop.advance(example.after)
    ran = shop.run_due()
    assert [(row.id, row.name, row.state.kind) for row in ran] == [(id, example.function.name, StateKind.SUCCESS)]
    assert ran[0].completed_time == shop.clock.now()
