"""Tasks as shops have them, run through their rows: each of Celery's features keeps its meaning."""

from __future__ import annotations

import pytest

from tests.legacy.conftest import Bookstore


def run_after(shop: Bookstore, function: str, args: str = "None", seconds: float = 1) -> str:
    return str(shop.call(f"confect.scheduler.run_after(Duration.seconds({seconds}), {function}, {args})"))


@pytest.mark.parametrize(
    ("function", "args", "result"),
    [
        ("mail.send_email", '{"to": "base"}', "base/hello/True"),
        ('mail.send_email.s("sig", subject="x").set(queue="mail", priority=3)', "None", "sig/x/True"),
        ("orders.Ship()", '{"order": 1}', "orders.ship"),
        ('app.tasks["orders.ship_abroad"]', '{"order": 2, "express": True}', "orders.ship_abroad"),
        ('app.signature("orders.price", args=(6, 7))', "None", 42),
        ('orders.price.si(2, 3).set(link=orders.invoice.s("linked"))', "None", 6),
    ],
    ids=["base", "signature", "class", "subclass", "by-name", "link"],
)
def test_any_task_or_signature(shop: Bookstore, function: str, args: str, result: object) -> None:
    id = run_after(shop, function, args)
    assert shop.result(id) == result
    row = shop.ended(id)
    assert (row["kind"], row["state"], row["attempt"]) == ("task", "success", 1)


def test_links_and_errbacks_run(shop: Bookstore) -> None:
    run_after(shop, 'orders.price.si(1, 9).set(link=orders.invoice.s("after"))')
    failed = run_after(shop, 'orders.break_down.s("x").set(link_error=orders.apologise.s())')
    shop.wait_written("invoice after 9")
    shop.wait_written(f"sorry {failed} ValueError")
    assert shop.ended(failed)["tag"] == "ValueError"


def test_automatic_retries(shop: Bookstore) -> None:
    id = run_after(shop, "mail.send_flaky", '{"to": "auto", "failures": 2}')
    again = shop.becomes(id, "pending")
    assert shop.result(id) == 2
    row = shop.ended(id)
    assert (row["state"], row["attempt"], again["attempt"] < row["attempt"]) == ("success", 5, True)
    [first], [second], [third] = (shop.written(f"flaky auto {n}") for n in range(3))
    assert second - first >= 1 and third - second >= 2, "1 s, then 2 s, as retry_backoff has it"


def test_retries_run_out(shop: Bookstore) -> None:
    id = run_after(shop, 'mail.send_flaky.s("never", 9).set(max_retries=1)')
    row = shop.ended(id)
    assert (row["state"], row["tag"]) == ("failed", "SmtpError")
    assert shop.call(f"app.AsyncResult({id!r}).state") == "FAILURE"


def test_a_long_retry_waits_in_the_table(shop: Bookstore) -> None:
    held = shop.call("held()")  # the mirrored calls of other tests
    id = run_after(shop, "mail.send_later", '{"to": "patient", "countdown": 3600}')
    shop.wait_written("later patient 0")
    row = shop.becomes(id, "pending")
    assert row["options"]["retries"] == 1 and row["attempt"] == 2
    assert shop.call("held()") == held, "no worker holds its message"
    assert shop.call(f"confect.scheduler.reschedule({id!r}, Duration.seconds(1))") is True
    assert shop.result(id) == "sent to patient"
    assert shop.ended(id)["state"] == "success"
    assert len(shop.written("later patient 1")) == 1


def test_a_task_canceled_while_it_runs_does_not_retry(shop: Bookstore) -> None:
    id = run_after(shop, "mail.send_flaky", '{"to": "canceled", "failures": 3}')
    shop.wait_written("flaky canceled 0")
    shop.becomes(id, "pending")
    assert shop.call(f"confect.scheduler.cancel({id!r})") is True
    other = run_after(shop, "orders.price", '{"quantity": 1, "each": 1}', seconds=3)
    assert shop.ended(other)["state"] == "success"
    assert len(shop.written("flaky canceled 1")) == 0 and shop.row(id)["state"] == "canceled"


def test_a_replacement_takes_the_row_with_it(shop: Bookstore) -> None:
    id = run_after(shop, "orders.pack", '{"order": 4}')
    assert shop.result(id) == 40
    row = shop.ended(id)
    assert (row["name"], row["state"], row["attempt"]) == ("orders.pack", "success", 3)
    assert len(shop.written("pack 4")) == len(shop.written("price 4*10")) == 1


def test_a_chain_that_replaces_a_task_runs(shop: Bookstore) -> None:
    id = run_after(shop, "orders.pack_many", '{"order": 5}')
    assert shop.result(id) == "chain owes 50"
    assert shop.ended(id)["state"] == "success"


def test_ignore_ends_well_and_reject_as_asked(shop: Bookstore) -> None:
    ignored = run_after(shop, "mail.send_if_wanted", '{"to": "x"}')
    refused = run_after(shop, "orders.refuse", '{"order": "no", "times": -1}')
    given_back = run_after(shop, "orders.refuse", '{"order": "later", "times": 2}')
    assert shop.ended(ignored)["state"] == "success"
    row = shop.ended(refused)
    assert (row["state"], row["tag"]) == ("failed", "Reject")
    assert shop.ended(given_back)["state"] == "success"
    assert (len(shop.written("refuse no")), len(shop.written("refuse later"))) == (1, 3)


def test_reject_on_worker_lost_runs_it_again_but_not_for_ever(shop: Bookstore) -> None:
    once = run_after(shop, "orders.fragile", '{"order": "once", "deaths": 1}')
    poison = run_after(shop, "orders.fragile", '{"order": "poison", "deaths": 99}')
    brittle = run_after(shop, "orders.brittle", '{"order": "b"}')
    assert shop.ended(once, within=60)["state"] == "success"
    for id in (poison, brittle):
        row = shop.ended(id, within=60)
        assert (row["state"], row["tag"]) == ("failed", "WorkerLost")
    assert [len(shop.written(f"fragile {name}")) for name in ("once", "poison")] == [2, 3]
    assert len(shop.written("brittle b")) == 1


def test_time_limits(shop: Bookstore) -> None:
    hard, soft = run_after(shop, "orders.endless", '{"order": 1}'), run_after(shop, "orders.patient", '{"order": 1}')
    assert [shop.ended(id)["tag"] for id in (hard, soft)] == ["TimeLimitExceeded", "SoftTimeLimitExceeded"]


def test_arguments_that_celerys_json_knows(shop: Bookstore) -> None:
    values = "__import__('uuid').uuid4(), __import__('decimal').Decimal('1.50'), b'\\x00\\xff'"
    when = "__import__('datetime').datetime(2030, 1, 2, tzinfo=__import__('datetime').timezone.utc)"
    id = run_after(shop, f"mail.typed.s({when}, {values})")
    assert shop.result(id) == ["2030-01-02T00:00:00+00:00", "Decimal", "1.50"]
