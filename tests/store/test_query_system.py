"""`_scheduled_functions`: a table like any other to read, and to cancel in; nothing else."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa

from confect_celery.errors import InvalidFilter, SystemTableReadOnly, UnknownField, UnknownTable
from confect_celery.store import ErrorInfo, ScheduledFunction, StateKind
from confect_celery.store.query import Catalog, DatabaseWriter, SystemTable
from confect_celery.store.schema import scheduled_functions_table
from tests.store.query_tables import Tables, ids


def failed(db: Tables, error: Any) -> str:
    id = db.schedule("internal/a/f", {}, StateKind.FAILED)
    table = db.store.table
    db.connection.execute(table.update().where(table.c.id == id).values(error=error))
    return id


def test_rows_are_scheduled_functions(db: Tables) -> None:
    id = db.schedule("internal/users/remind", {"user_id": "u1", "metadata": {"source": "web"}})
    row = db.table("_scheduled_functions").get(id)
    assert isinstance(row, ScheduledFunction)
    assert row == db.store.rows.get(db.connection, id)
    assert (row.id, row.name, row.args["user_id"], row.state.kind) == (id, "internal/users/remind", "u1", "pending")


def test_found_by_name_state_and_args(db: Tables) -> None:
    mine = db.schedule("internal/users/remind", {"user_id": "u1", "metadata": {"source": "web"}, "n": 1})
    running = db.schedule("internal/users/remind", {"user_id": "u1"}, StateKind.IN_PROGRESS)
    done = db.schedule("internal/users/remind", {"user_id": "u1"}, StateKind.SUCCESS)
    other = db.schedule("internal/users/other", {"user_id": "u2", "n": "1"})
    table = db.table("_scheduled_functions")

    def found(build: Any) -> set[str]:
        return set(ids(table.filter(build).collect()))

    assert found(lambda q: q.eq(q.field("name"), "internal/users/remind")) == {mine, running, done}
    assert found(lambda q: q.eq(q.field("state.kind"), "pending")) == {mine, other}
    assert found(lambda q: q.eq(q.field("state.kind"), StateKind.IN_PROGRESS)) == {running}
    assert found(lambda q: q.neq(q.field("state.kind"), "pending")) == {running, done}
    assert found(lambda q: q.in_(q.field("state.kind"), ["pending", "success"])) == {mine, done, other}
    assert found(lambda q: q.in_(q.field("state.kind"), ["pending", "inProgress"])) == {mine, running, other}
    assert found(lambda q: q.not_(q.eq(q.field("state.kind"), "pending"))) == {running, done}
    assert found(lambda q: q.eq(q.field("args.user_id"), "u1")) == {mine, running, done}
    assert found(lambda q: q.eq(q.field("args.metadata.source"), "web")) == {mine}
    assert found(lambda q: q.eq(q.field("args.n"), 1)) == {mine}
    assert found(lambda q: q.eq(q.field("completed_time"), None)) == {mine, running, other}
    assert found(lambda q: q.eq(q.field("id"), mine)) == {mine}
    due = table.get(mine).scheduled_time
    assert mine in found(lambda q: q.lte(q.field("scheduled_time"), due))
    assert table.order("desc", by="creation").paginate(2).items[0].id in {mine, running, done, other}


def test_errors_of_failed_rows(db: Tables) -> None:
    lost = failed(db, {"tag": "WorkerLost", "message": "gone", "data": {"n": 1}})
    db.schedule("internal/a/f", {})
    table = db.table("_scheduled_functions")
    assert ids(table.filter(lambda q: q.eq(q.field("state.error.tag"), "WorkerLost")).collect()) == [lost]
    assert ids(table.filter(lambda q: q.eq(q.field("state.error.data.n"), 1)).collect()) == [lost]
    assert ids(table.filter(lambda q: q.neq(q.field("state.error"), None)).collect()) == [lost]
    assert table.get(lost).state.error == ErrorInfo("WorkerLost", "gone", {"n": 1})


@pytest.mark.parametrize("junk", [[1], "text", 7, {"no": "tag"}, {"tag": None, "message": 5}, None])
def test_junk_where_an_error_should_be_is_shown_not_raised(db: Tables, junk: Any) -> None:
    error = db.table("_scheduled_functions").get(failed(db, junk)).state.error
    assert isinstance(error, ErrorInfo)
    assert isinstance(error.tag, str)


def test_fields_that_a_scheduled_function_has_not(db: Tables) -> None:
    table = db.table("_scheduled_functions")
    for path in ("state.kid", "state.kind.x", "name.x", "user_id"):
        with pytest.raises((UnknownField, InvalidFilter)):
            table.filter(lambda q, path=path: q.eq(q.field(path), "a"))


def test_it_cannot_be_written_to(db: Tables) -> None:
    id = db.schedule("internal/a/f", {})
    table = db.table("_scheduled_functions")
    for use in (
        lambda: table.insert({"name": "x"}),
        lambda: table.patch(id, {"state": "success"}),
        lambda: table.replace(id, {}),
    ):
        with pytest.raises(SystemTableReadOnly):
            use()
    assert table.get(id).state.kind == "pending"
    assert not hasattr(table.filter(lambda q: q.and_()), "delete")


def test_delete_cancels_and_minds_no_unknown_id(db: Tables) -> None:
    id = db.schedule("internal/a/f", {})
    assert db.table("_scheduled_functions").delete(id) is None  # type: ignore[func-returns-value]
    assert db.table("_scheduled_functions").delete("unknown") is None  # type: ignore[func-returns-value]
    assert db.canceled == [id, "unknown"]
    refusing = DatabaseWriter(db.connection, db.store.catalog, lambda id: False)
    assert refusing.table("_scheduled_functions").delete(id) is None  # type: ignore[func-returns-value]


@pytest.mark.parametrize(
    "name",
    ["main._scheduled_functions", "public._scheduled_functions", "_SCHEDULED_FUNCTIONS", "Main._Scheduled_Functions"],
)
def test_no_other_name_reaches_it(db: Tables, name: str) -> None:
    with pytest.raises(UnknownTable) as caught:
        db.table(name)
    assert "_scheduled_functions" in caught.value.close


def test_its_physical_name_is_nobodys_business(db: Tables) -> None:
    physical = scheduled_functions_table(sa.MetaData(), prefix="shop_")
    physical.create(db.connection)
    writer = DatabaseWriter(db.connection, Catalog(None, SystemTable(physical)), lambda id: True)
    assert writer.table("_scheduled_functions").count() == 0
    with pytest.raises(UnknownTable):
        writer.table("shop__scheduled_functions")


def test_a_filter_on_live_rows_says_so_to_the_partial_index(db: Tables) -> None:
    table = db.table("_scheduled_functions")
    table.filter(lambda q: q.eq(q.field("state.kind"), "pending")).collect()
    assert "next_at IS NOT NULL" in db.statements[-1]
    table.filter(lambda q: q.in_(q.field("state.kind"), ["pending", "inProgress"])).collect()
    assert "next_at IS NOT NULL" in db.statements[-1]
    table.filter(lambda q: q.in_(q.field("state.kind"), ["pending", "failed"])).collect()
    assert "next_at IS NOT NULL" not in db.statements[-1]
