"""`apply_async(countdown=…)` and its like, taken into the table by one setting."""

from __future__ import annotations

import time
from collections.abc import Callable

from tests.legacy.conftest import Bookstore
from tests.support.waiting import wait_for

Make = Callable[..., Bookstore]


def apply_async(shop: Bookstore, task: str, args: str, **options: object) -> str:
    given = "".join(f", {name}={value!r}" for name, value in options.items())
    return str(shop.call(f"{task}.apply_async({args}{given}).id"))


def test_a_far_call_is_listed_and_canceled(shop: Bookstore) -> None:
    id = apply_async(shop, "mail.send_email", '("far@b",), {"subject": "s"}', countdown=86400)
    row = shop.row(id)
    assert (row["name"], row["state"], row["args"]) == (
        "tests.legacy.bookstore.mail.send_email",
        "pending",
        {"subject": "s"},
    )
    assert row["options"]["args"] == ["far@b"] and abs(row["due"] - time.time() - 86400) < 30
    wait_for(lambda: shop.call("held()") == (shop.mode == "mirror"), what="a worker to hold it, or none")
    assert shop.call(f"confect.scheduler.cancel({id!r})") is True
    assert shop.row(id)["state"] == "canceled"


def test_a_near_call_runs_once_at_its_time(shop: Bookstore) -> None:
    before = time.time()
    id = apply_async(shop, "orders.price", "(3, 4)", countdown=1.5)
    assert shop.result(id) == 12
    assert shop.ended(id)["state"] == "success"
    [at] = shop.written("price 3*4")
    assert before + 1.5 <= at < before + 10


def test_a_caller_may_choose_the_id(shop: Bookstore) -> None:
    id = apply_async(shop, "orders.price", "(5, 4)", countdown=1.5, task_id=f"order-5-{shop.mode}")
    assert id == f"order-5-{shop.mode}" and shop.result(id) == 20
    assert shop.ended(id)["state"] == "success"


def test_what_is_canceled_before_its_time_never_runs(shop: Bookstore) -> None:
    id = apply_async(shop, "orders.price", "(6, 6)", countdown=2)
    assert shop.call(f"confect.scheduler.cancel({id!r})") is True
    after = apply_async(shop, "orders.price", "(6, 7)", countdown=4)
    assert shop.result(after) == 42
    assert shop.written("price 6*6") == []


def test_calls_without_a_delay_stay_celerys_own(shop: Bookstore) -> None:
    id = str(shop.call("orders.price.delay(7, 7).id"))
    assert shop.result(id) == 49 and shop.call(f"row({id!r})") is None


def test_the_retry_of_an_immediate_call_is_taken_in(shop: Bookstore) -> None:
    id = str(shop.call('mail.send_later.delay("now", 3600).id'))
    shop.wait_written("later now 0")
    row = wait_for(lambda: shop.call(f"row({id!r})"), what="its retry's row")
    assert (row["state"], row["options"]["retries"]) == ("pending", 1)
    assert shop.call(f"confect.scheduler.reschedule({id!r}, Duration.seconds(1))") is True
    assert shop.result(id) == "sent to now"
    assert shop.ended(id)["state"] == "success"


def test_canvas_with_delays(shop: Bookstore) -> None:
    chained = shop.call(
        'chain(orders.price.s(2, 8), orders.invoice.s("c").set(countdown=2)).apply_async(countdown=1.5).id'
    )
    assert shop.result(chained) == "c owes 16" and shop.ended(chained)["state"] == "success"

    headers = "[orders.price.s(n, 1) for n in (10, 20, 30)]"
    summed = shop.call(f"chord({headers})(orders.total.s(shipping=5), countdown=2).id")
    assert shop.result(summed) == 65

    ids = shop.call(f"[r.id for r in group({headers}).apply_async(countdown=1.5).results]")
    assert [shop.result(id) for id in ids] == [10, 20, 30]
    assert {shop.ended(id)["state"] for id in ids} == {"success"}


def test_a_task_that_starts_delayed_tasks(shop: Bookstore) -> None:
    parent = str(shop.call("orders.remind.delay(77).id"))
    child = shop.result(parent)
    assert shop.result(child) == 77
    row = shop.ended(child)
    assert row["options"]["parent_id"] == parent and row["options"]["root_id"] == parent
    assert shop.call(f"[c.id for c in app.AsyncResult({parent!r}).children]") == [child]


def test_what_expires_is_not_run(shop: Bookstore) -> None:
    id = apply_async(shop, "mail.send_fresh", '("x",)', countdown=3, expires=1)
    assert shop.ended(id)["state"] == "canceled"
    assert shop.written("fresh x") == []


def test_a_task_decides_for_itself(shop: Bookstore) -> None:
    id = apply_async(shop, "reports.native", '("a",)', countdown=2)
    assert shop.call(f"row({id!r})") is None
    always = apply_async(shop, "reports.always", '("a",)', countdown=2)
    assert shop.row(always)["state"] == "pending"
    assert len(shop.wait_written("native a")) == len(shop.wait_written("always a")) == 1


def test_what_the_table_cannot_hold_is_left_to_celery(shop: Bookstore) -> None:
    id = apply_async(shop, "mail.send_email", '("nul\\x00",)', countdown=1.5)
    assert shop.call(f"row({id!r})") is None
    assert shop.result(id).startswith("nul")


def test_beat_entries_with_a_delay_and_of_functions(new_shop: Make) -> None:
    shop = new_shop()
    shop.worker()
    shop.beat()
    shop.wait_written("stock", times=2)
    shop.wait_written("sweep A", times=2)
    stock, sweeps = shop.call('rows("reports.stock")'), shop.call('rows("internal/stock/sweep")')
    assert {shop.ended(id)["state"] for id in stock[:2] + sweeps[:2]} == {"success"}
    assert len(stock) >= 2 and len(sweeps) >= 2


def test_a_function_called_as_a_task_is_a_row(shop: Bookstore) -> None:
    id = str(shop.call('app.send_task("internal/stock/sweep", kwargs={"shelf": "B"}).id'))
    assert shop.ended(id)["state"] == "success" and len(shop.written("sweep B")) == 1
    later = str(shop.call('app.send_task("internal/stock/sweep", [{"shelf": "C"}], countdown=3600).id'))
    assert shop.row(later)["state"] == "pending" and shop.row(later)["args"] == {"shelf": "C"}


def test_a_killed_worker_loses_no_delayed_call(new_shop: Make) -> None:
    shop = new_shop()
    worker = shop.worker()
    far = [apply_async(shop, "orders.price", f"({n}, 100)", countdown=4) for n in range(20)]
    retried = str(shop.call('mail.send_later.delay("survivor", 4).id'))
    wait_for(lambda: shop.call(f"row({retried!r})"), what="its retry's row")
    worker.kill()
    shop.worker()
    assert {shop.ended(id)["state"] for id in [*far, retried]} == {"success"}
    assert all(len(shop.written(f"price {n}*100")) == 1 for n in range(20))
    assert len(shop.written("later survivor 1")) == 1


def test_acks_late_survives_the_whole_worker(new_shop: Make) -> None:
    shop = new_shop("rabbitmq")
    worker = shop.worker()
    id = apply_async(shop, "orders.late", '("x", 1)', countdown=1.5)
    shop.wait_written("late x")
    worker.kill()
    shop.worker()
    assert shop.ended(id, within=60)["state"] == "success"
    assert len(shop.written("late x")) == 2, "at least once, as acks_late asks"
