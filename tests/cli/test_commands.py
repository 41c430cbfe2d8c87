"""Each command on every database, in this process."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from celery import Celery
from click.testing import CliRunner, Result
from pydantic import BaseModel

from confect_celery import Confect, CronJob, DateTime, Duration
from confect_celery.cli import confect as command
from confect_celery.store import NewRow, StateKind, new_id
from tests.support.databases import DATABASES, Databases

HOUR = Duration.hours(1)


class Args(BaseModel):
    user_id: int
    meta: dict[str, str] = {}


class Shop:
    def __init__(self, url: str) -> None:
        self.app = Celery("cli", broker="memory://", set_as_current=False)
        self.app.conf.confect_database_url = url
        self.confect = Confect(self.app)
        group = self.confect.group("users")

        @group.internal_mutation
        def remind(args: Args) -> None: ...

        @self.app.task(name="plain.send", shared=False)
        def send(to: str) -> None: ...

        self.remind, self.send = remind, send

    def __call__(self, *arguments: str, code: int = 0, answer: str | None = None) -> str:
        result: Result = CliRunner().invoke(command, arguments, obj=SimpleNamespace(app=self.app), input=answer)
        assert result.exit_code == code, result.output
        assert "Traceback" not in result.output
        return result.output

    def json(self, *arguments: str) -> Any:
        return json.loads(self(*arguments, "--json"))

    def after(self, delay: Duration, **args: Any) -> str:
        return str(self.confect.scheduler.run_after(delay, self.remind, args))

    def state(self, id: str) -> str:
        row = self.confect.scheduler.get(id)
        assert row is not None
        return row.state.kind.value

    def failed(self, tag: str = "Broken", message: str = "it broke", **args: Any) -> str:
        id = self.after(HOUR, **args)
        now = self.confect.clock.now()
        with self.confect.store.database.transaction() as t:
            error = {"tag": tag, "message": message, "traceback": "File x\n  line 1"}
            assert self.confect.store.rows.fail_pending(t.connection, id, 0, now, error)
        return id


@pytest.fixture(params=DATABASES)
def shop(request: pytest.FixtureRequest, databases: Databases, tmp_path: Any) -> Iterator[Shop]:
    with databases.url(request.param, tmp_path) as url:
        shop = Shop(url)
        shop("migrate")
        yield shop
        shop.confect.store.database.dispose()


def ids(rows: list[dict[str, Any]]) -> list[str]:
    return [row["id"] for row in rows]


def test_list_chooses_by_every_flag(shop: Shop) -> None:
    soon, late = shop.after(HOUR, user_id=7, meta={"source": "web"}), shop.after(HOUR * 48, user_id=8)
    run = shop.confect.scheduler.run_after
    plain = str(run(HOUR * 2, shop.send, {"to": "7"}))
    queued = str(run(HOUR * 3, shop.send.s(to="x").set(queue="mail")))
    failed = shop.failed(user_id=9)

    assert ids(shop.json("list", "--state", "pending")) == [soon, plain, queued, late]
    assert ids(shop.json("list", "--order", "desc", "--limit", "1")) == [late]
    assert ids(shop.json("list", "--name", "internal/users/*", "--arg", "user_id=7")) == [soon]
    assert ids(shop.json("list", "--arg", "meta.source=web")) == [soon]
    assert ids(shop.json("list", "--arg", "to=7")) == [plain], "a text that looks like a number"
    assert ids(shop.json("list", "--kind", "task", "--queue", "mail")) == [queued]
    assert ids(shop.json("list", "--due-before", "90m", "--state", "pending")) == [soon]
    assert ids(shop.json("list", "--due-after", "P1D")) == [late]
    assert ids(shop.json("list", "--state", "failed", "--state", "canceled")) == [failed]
    assert shop.json("list", "--parent", "nobody") == []
    shown = shop("list")
    assert soon in shown and "failed Broken" in shown and "internal/users/remind" in shown


def test_show(shop: Shop) -> None:
    id = shop.failed(message="line 1\nline 2\x1b[31m", user_id=3)
    shown = shop("show", id, "--zone", "Europe/Paris")
    assert "Broken: line 1\\nline 2\\x1b[31m" in shown and "\x1b" not in shown and "[Europe/Paris]" in shown
    assert shop.json("show", id)["error"]["message"] == "line 1\nline 2\x1b[31m"
    assert "no scheduled function" in shop("show", "nothing", code=1)


def test_arguments_can_be_hidden(shop: Shop) -> None:
    shop = Shop(shop.app.conf.confect_database_url)
    shop.app.conf.confect_show_args = False
    id = shop.after(HOUR, user_id=4242)
    for arguments in (("list",), ("show", id), ("list", "--json"), ("cancel", "--arg", "user_id=4242", "--yes")):
        assert "4242" not in shop(*arguments).replace(id, "")
    assert "4242" in shop("show", id, "--show-args")
    shop.confect.store.database.dispose()


def test_cancel_by_id_tells_what_it_could_not(shop: Shop) -> None:
    id, ended = shop.after(HOUR, user_id=1), shop.failed(user_id=2)
    said = shop("cancel", id, ended, "nothing", code=1)
    assert "1 of 3 canceled" in said and "it is failed" in said and "no such row" in said
    assert shop.state(id) == "canceled"


def test_cancel_by_flags_asks_with_a_preview(shop: Shop) -> None:
    chosen = [shop.after(HOUR, user_id=5) for _ in range(12)]
    other = shop.after(HOUR, user_id=6)
    asked = shop("cancel", "--arg", "user_id=5", code=1, answer="n\n")
    assert "Cancel 12?" in asked and "… and 2 more" in asked
    assert {shop.state(id) for id in chosen} == {"pending"}
    assert "12 of 12 canceled" in shop("cancel", "--arg", "user_id=5", answer="y\n")
    assert {shop.state(id) for id in chosen} == {"canceled"} and shop.state(other) == "pending"
    assert "No row" in shop("cancel", "--arg", "user_id=5", "--yes")
    shop("cancel", code=2)
    shop("cancel", other, "--name", "*", code=2)


def test_run_now_and_reschedule(shop: Shop) -> None:
    id = shop.after(HOUR, user_id=1)
    shop("reschedule", id, "2h30m")
    row = shop.confect.scheduler.get(id)
    assert row is not None
    due = row.scheduled_time - shop.confect.clock.now()
    assert Duration.minutes(149) < due <= Duration.minutes(150)
    assert "2031-01-01T00:00:00Z" in shop("reschedule", id, "2031-01-01T00:00:00Z")
    shop("run-now", "--arg", "user_id=1", "--yes")
    row = shop.confect.scheduler.get(id)
    assert row is not None and row.scheduled_time < shop.confect.clock.now() + Duration.seconds(2)
    shop("reschedule", id, "never", code=2)
    assert "1830d" in shop("reschedule", id, "P9999D", code=1)
    assert "is not moved: it is failed" in shop("reschedule", shop.failed(user_id=2), "1h", code=1)


def test_retry_makes_new_rows(shop: Shop) -> None:
    one, two = shop.failed(user_id=1), shop.failed(user_id=2)
    said = shop("retry", "--arg", "user_id=1", "--at", "1h", "--yes")
    [line] = [line for line in said.splitlines() if " -> " in line]
    old, new = line.split(" -> ")
    assert old == one and shop.state(one) == "failed" and shop.state(new) == "pending"
    assert "not scheduled: it is pending" in shop("retry", two, new, code=1)


def test_stats(shop: Shop) -> None:
    shop.after(Duration.minutes(5) + Duration.seconds(30), user_id=1)
    shop.failed(tag="Smtp", user_id=2)
    told = shop.json("stats", "--minutes", "10")
    assert told["live"] == {"pending": 1, "inProgress": 0} and told["due_per_minute"].index(1) == 5
    assert told["failures"] == [{"tag": "Smtp", "name": "internal/users/remind", "count": 1}]
    shown = shop("stats", "--minutes", "10")
    assert "[     █    ]" in shown and "Smtp" in shown


def test_crons(shop: Shop) -> None:
    shop.confect.crons.add(CronJob("nightly", "0 3 * * *", shop.remind, {"user_id": 1}, zone="Europe/Paris"))
    assert "not seen yet" in shop("crons") and "0 3 * * * Europe/Paris" in shop("crons")
    (state,) = shop.json("crons")
    assert (state["name"], state["function"], state["missed"]) == ("nightly", "internal/users/remind", 0)


def test_check_finds_what_is_wrong(shop: Shop) -> None:
    assert "All is well" in shop("check")
    assert shop("check", "--quiet") == ""
    now = shop.confect.clock.now()
    due = now - Duration.minutes(5)
    row = NewRow(new_id(now), "internal/users/gone", "mutation", {}, due, now, due)
    with shop.confect.store.database.transaction() as t:
        shop.confect.store.rows.insert(t.connection, [row], delivered_until={}, born=StateKind.PENDING)
    said = shop("check", code=1)
    assert "1 pending rows are overdue, the first since 5m" in said and "internal/users/gone (1)" in said
    assert "gone" in shop("check", "--overdue", "600") and "gone" in shop(
        "check", "--overdue", "600", "--strict", code=1
    )
    grades = {finding["grade"] for finding in json.loads(shop("check", "--json", code=1))}
    assert grades == {"ok", "warn", "fail"}


@pytest.mark.parametrize(
    ("break_it", "said"),
    [
        (lambda shop: shop.app.conf.update(confect_horizont=3), "did you mean confect_horizon"),
        (lambda shop: shop.confect.crons.add(CronJob("bad", HOUR, "nothing")), "cron 'bad'"),
        (lambda shop: shop.app.conf.update(broker_transport_options={"visibility_timeout": 1}), "visibility_timeout"),
    ],
    ids=["setting", "cron", "visibility"],
)
def test_check_of_the_code(tmp_path: Any, break_it: Callable[[Shop], object], said: str) -> None:
    shop = Shop(f"sqlite:///{tmp_path}/x.db")
    break_it(shop)
    assert said in shop("check", code=1)


def test_migrate_prints_sql_for_a_dba(shop: Shop) -> None:
    both, second = shop("migrate", "--sql"), shop("migrate", "--sql", "--from", "0001")
    assert "_scheduled_functions" in both and "_confect_crons" in both
    assert "_confect_crons" in second and "CREATE TABLE _scheduled_functions" not in second
    assert "Can't locate revision" in shop("migrate", "--sql", "--from", "1234", code=1)
    shop("migrate", "--from", "0001", code=2)


def test_times_are_read_as_written() -> None:
    from confect_celery.cli.group import parse_when

    assert parse_when("1d2h") == Duration.hours(26) and parse_when("PT0.5S") == Duration.millis(500)
    assert parse_when("2030-01-01T00:00:00+02:00") == DateTime.parse("2029-12-31T22:00:00Z")
