"""What Flower shows of scheduled functions, and what its buttons do."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Any

from sqlalchemy.orm import Session

from confect_celery import DateTime, Duration
from tests.flower.conftest import Shared
from tests.flower.rig import Rig
from tests.support.waiting import wait_for

NEXT_WEEK = Duration.days(7)
NEAR = Duration.seconds(1)


def eta_of(task: dict[str, Any]) -> DateTime:
    return DateTime.of(dt.datetime.fromisoformat(task["eta"]))


class TestWhatItShows:
    def test_a_job_of_next_week_is_pending_with_its_eta_and_args(self, shared: Shared) -> None:
        id = shared.rig.scheduler.run_after(NEXT_WEEK, shared.rig.shop.remind, {"order_id": "A-1"})
        task = shared.flower.task(id, "PENDING", within=5)

        assert task["name"] == "internal/orders/remind"
        assert (task["args"], task["kwargs"]) == ("()", "{'order_id': 'A-1'}")
        assert eta_of(task) == shared.rig.row(id).scheduled_time
        assert not any("confect" in worker for worker in shared.flower.workers())  # a client is not taken for a worker

    def test_rescheduled_it_has_the_new_eta_and_cancelled_it_is_revoked(self, shared: Shared) -> None:
        id = shared.rig.scheduler.run_after(NEXT_WEEK, shared.rig.shop.remind, {"order_id": "A-2"})
        before = shared.flower.task(id, "PENDING")
        shared.rig.scheduler.reschedule(id, Duration.days(30))
        moved = wait_for(lambda: (task := shared.flower.tasks()[id])["eta"] != before["eta"] and task)
        assert moved["state"] == "PENDING" and eta_of(moved) == shared.rig.row(id).scheduled_time

        shared.rig.scheduler.cancel(id)
        shared.flower.task(id, "REVOKED", within=5, name="internal/orders/remind")

    def test_inside_a_transaction_it_shows_what_was_committed(self, shared: Shared) -> None:
        with Session(shared.rig.confect.store.database.engine) as session:
            mine = shared.rig.scheduler.using(session)
            rolled_back = mine.run_after(NEXT_WEEK, shared.rig.shop.remind, {"order_id": "rolled back"})
            session.rollback()
            id = mine.run_after(NEXT_WEEK, shared.rig.shop.remind, {"order_id": "committed"})
            assert id not in shared.flower.tasks()
            session.commit()
        shared.flower.task(id, "PENDING", within=5)
        assert rolled_back not in shared.flower.tasks()

    def test_its_run_is_under_the_same_id(self, shared: Shared) -> None:
        id = shared.rig.scheduler.run_after(NEAR, shared.rig.shop.remind, {"order_id": "A-3"})
        task = shared.flower.task(id, "SUCCESS", result="'reminded of A-3'")
        assert task["kwargs"] == "{'order_id': 'A-3'}"
        assert task["received"] <= task["started"] <= task["succeeded"]

    def test_a_failure_is_shown_with_its_error(self, shared: Shared) -> None:
        id = shared.rig.scheduler.run_after(NEAR, shared.rig.shop.refund, {"order_id": "A-4"})
        task = shared.flower.task(id, "FAILURE")
        assert "NoSuchOrder" in task["exception"] and "A-4" in task["exception"] and "Traceback" in task["traceback"]

    def test_a_plain_tasks_retry_is_shown_and_then_its_success(self, shared: Shared) -> None:
        id = shared.rig.scheduler.run_after(NEAR, shared.rig.shop.call_bank, {"order_id": "A-5"})
        shared.flower.task(id, "RETRY")
        task = shared.flower.task(id, "SUCCESS", result="'A-5'")
        assert task["retries"] == 1


class TestItsButtons:
    def test_revoke_cancels_the_row_of_next_week(self, shared: Shared) -> None:
        id = shared.rig.scheduler.run_after(NEXT_WEEK, shared.rig.shop.remind, {"order_id": "B-1"})
        shared.flower.task(id, "PENDING")
        shared.flower.revoke(id)
        shared.rig.becomes(id, "canceled", within=5)
        shared.flower.task(id, "REVOKED")
        assert shared.rig.scheduler.reschedule(id, NEAR) is False

    def test_terminate_ends_a_running_action(self, shared: Shared) -> None:
        self._terminated(shared, shared.rig.shop.export)

    def test_terminate_ends_a_running_task(self, shared: Shared) -> None:
        self._terminated(shared, shared.rig.shop.pack)

    def _terminated(self, shared: Shared, function: Any) -> None:
        id = shared.rig.scheduler.run_after(NEAR, function, {"order_id": "B-2"})
        shared.rig.becomes(id, "inProgress")
        shared.flower.task(id, "STARTED")
        shared.flower.revoke(id, terminate="true")
        row = shared.rig.becomes(id, "canceled")
        assert row.state.error is None
        shared.flower.task(id, "REVOKED")

    def test_a_stranger_to_the_table_harms_nobody(self, shared: Shared) -> None:
        shared.flower.revoke("no-such-row")
        shared.flower.revoke("x" * 200)
        id = shared.rig.scheduler.run_after(NEAR, shared.rig.shop.remind, {"order_id": "B-3"})
        shared.rig.becomes(id, "success")


class TestRestarts:
    def test_a_worker_that_restarts_remembers_what_was_revoked(self, new_rig: Callable[..., Rig]) -> None:
        rig = new_rig(confect_redelivery=5)
        worker, flower = rig.worker(), rig.flower()
        ids = [rig.scheduler.run_after(Duration.seconds(8), rig.shop.remind, {"order_id": "C"}) for _ in range(2)]
        flower.task(ids[0], "PENDING")
        flower.revoke(ids[0])
        rig.becomes(ids[0], "canceled")
        worker.kill()
        worker.start()
        rig.becomes(ids[1], "success")
        assert rig.row(ids[0]).state.kind == "canceled" and rig.row(ids[0]).attempt == 0

    def test_without_any_worker_app_control_cancels_the_row(self, new_rig: Callable[..., Rig]) -> None:
        rig = new_rig()
        ids = rig.scheduler.run_many([(Duration.seconds(4), rig.shop.remind, {"order_id": "D"})] * 4)
        rig.app.AsyncResult(ids[0]).revoke()
        rig.app.control.revoke([ids[1], "no row", ids[2]], terminate=True)
        assert [rig.row(id).state.kind for id in ids] == ["canceled", "canceled", "canceled", "pending"]
        rig.worker()
        rig.becomes(ids[3], "success")
        assert [rig.row(id).state.kind for id in ids[:3]] == ["canceled"] * 3

    def test_a_flower_that_starts_later_learns_of_what_is_pending(self, new_rig: Callable[..., Rig]) -> None:
        rig = new_rig()
        rows = rig.scheduler.run_many([(Duration.days(n + 1), rig.shop.remind, {"order_id": "E"}) for n in range(1200)])
        rig.worker()
        flower = rig.flower()
        wait_for(lambda: set(rows) <= set(flower.tasks()), what="all rows")
        assert eta_of(flower.task(rows[-1], "PENDING")) == rig.row(rows[-1]).scheduled_time

    def test_settings_hide_the_args_or_the_events(self, new_rig: Callable[..., Rig]) -> None:
        hidden = new_rig(confect_show_args=False)
        hidden.worker()
        flower = hidden.flower()
        id = hidden.scheduler.run_after(NEXT_WEEK, hidden.shop.remind, {"order_id": "secret"})
        task = flower.task(id, "PENDING")
        assert (task["args"], task["kwargs"]) == ("(hidden)", "(hidden)")

        quiet = new_rig(hidden.broker_url, confect_events=False)
        unheard = quiet.scheduler.run_after(NEXT_WEEK, quiet.shop.remind, {"order_id": "unheard"})
        heard = hidden.scheduler.run_after(NEXT_WEEK, hidden.shop.remind, {"order_id": "heard"})
        flower.task(heard, "PENDING")
        assert unheard not in flower.tasks()
