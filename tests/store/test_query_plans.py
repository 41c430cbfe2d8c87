"""Plans: filters reach indexes, and the order by `next_at` of live rows comes straight out of the partial one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from confect_celery.store.dialects import dialect_for
from confect_celery.store.query import Query
from confect_celery.store.schema import scheduled_functions_table
from confect_celery.store.statements import Statements
from confect_celery.timing import DateTime, Duration
from tests.store.query_tables import Tables, open_tables
from tests.support.databases import Databases

INDEXES = (
    "CREATE TABLE tall (id VARCHAR(36) PRIMARY KEY, needed VARCHAR(20) NOT NULL, optional INTEGER)",
    "CREATE INDEX ix_needed ON tall (needed)",
    "CREATE INDEX ix_optional ON tall (optional, id)",
)
BY_ARGS = {
    "sqlite": "CREATE INDEX ix_args ON _scheduled_functions (json_extract(args, '$.user_id'))",
    "postgresql": "CREATE INDEX ix_args ON _scheduled_functions ((args ->> 'user_id'))",
}


@pytest.fixture(params=["sqlite", "postgresql"])
def db(request: pytest.FixtureRequest, databases: Databases, tmp_path: Path) -> Iterator[Tables]:
    with open_tables(databases, request.param, tmp_path) as tables:
        for statement in (*INDEXES, BY_ARGS[request.param]):
            tables.connection.exec_driver_sql(statement)
        if request.param == "postgresql":  # a table of a few rows is read as a whole, whatever its indexes
            tables.connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
            tables.connection.exec_driver_sql("SET LOCAL enable_bitmapscan = off")
        yield tables


def plan(db: Tables, ask: Callable[[], Any]) -> str:
    """How the database goes about the one statement of `ask`."""
    asked: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, sql: str, parameters: Any, *_: Any) -> None:
        asked.append((sql, parameters))

    sa.event.listen(db.connection, "before_cursor_execute", note)
    ask()
    sa.event.remove(db.connection, "before_cursor_execute", note)
    ((sql, parameters),) = asked
    explain = "EXPLAIN QUERY PLAN " if db.connection.dialect.name == "sqlite" else "EXPLAIN "
    rows = db.connection.exec_driver_sql(explain + sql, parameters).all()
    return "\n".join(" ".join(map(str, row)) for row in rows)


def sorts(plan: str) -> bool:
    return "TEMP B-TREE" in plan or "Sort" in plan


@pytest.mark.parametrize(("field", "value", "index"), [("needed", "x", "ix_needed"), ("optional", 1, "ix_optional")])
def test_equality_is_served_by_an_index(db: Tables, field: str, value: Any, index: str) -> None:
    tall = db.table("tall")
    assert index in plan(db, lambda: tall.filter(lambda q: q.eq(q.field(field), value)).count())
    assert index in plan(db, lambda: tall.filter(lambda q: q.in_(q.field(field), [value])).count())
    assert "ix_optional" in plan(db, lambda: tall.filter(lambda q: q.eq(q.field("optional"), None)).count())


@pytest.mark.parametrize("direction", ["asc", "desc"])
def test_an_order_by_a_column_that_the_filter_fills_needs_no_sort(db: Tables, direction: Any) -> None:
    query = db.table("tall").filter(lambda q: q.gt(q.field("optional"), 5)).order(direction, by="optional")
    for ask in (lambda: query.take(3), lambda: query.paginate(3)):
        found = plan(db, ask)
        assert "ix_optional" in found
        assert not sorts(found), found


def test_pages_by_the_id_start_where_the_last_one_ended(db: Tables) -> None:
    db.connection.exec_driver_sql("INSERT INTO tall VALUES ('a', 'x', 1), ('b', 'x', 2), ('c', 'x', 3)")
    query = db.table("tall").order("asc", by="needed")
    cursor = query.paginate(1).cursor
    found = plan(db, lambda: query.paginate(1, cursor))
    assert "ix_needed (needed>?)" in found or "Index Cond: ((needed)::text >= 'x'" in found, found


@pytest.mark.parametrize("direction", ["asc", "desc"])
@pytest.mark.parametrize("states", [["pending"], ["pending", "inProgress"]])
def test_live_rows_come_from_the_partial_index_in_its_order(db: Tables, states: list[str], direction: Any) -> None:
    jobs: Query[Any] = db.table("_scheduled_functions")
    query = jobs.filter(lambda q: q.in_(q.field("state.kind"), states)).order(direction, by="next_at")
    for ask in (lambda: query.take(10), lambda: query.paginate(10)):
        found = plan(db, ask)
        assert "ix_scheduled_functions_next" in found, found
        assert not sorts(found), found


def test_a_filter_by_args_is_served_by_an_index_on_them(db: Tables) -> None:
    jobs = db.table("_scheduled_functions")
    assert "ix_args" in plan(db, lambda: jobs.filter(lambda q: q.eq(q.field("args.user_id"), "u1")).count())


@pytest.mark.parametrize("value", ["u1", 7, 0.5])
def test_on_postgresql_one_index_of_all_args_serves_any_of_them(db: Tables, value: Any) -> None:
    if db.connection.dialect.name != "postgresql":
        return  # nobody else has such an index
    db.connection.exec_driver_sql("DROP INDEX ix_args")
    db.connection.exec_driver_sql("SET LOCAL enable_bitmapscan = on")
    db.connection.exec_driver_sql(
        "CREATE INDEX ix_all_args ON _scheduled_functions USING gin (args jsonb_path_ops) WHERE next_at IS NOT NULL"
    )
    jobs: Query[Any] = db.table("_scheduled_functions")
    pending = jobs.filter(lambda q: q.eq(q.field("state.kind"), "pending"))
    for path in ("args.user_id", "args.meta.source"):
        found = plan(db, lambda path=path: pending.filter(lambda q: q.eq(q.field(path), value)).count())  # type: ignore[misc]
        assert "ix_all_args" in found, found


def test_the_dispatchers_poll_takes_the_first_entry_of_the_index(db: Tables) -> None:
    dialect = dialect_for(sa.make_url("sqlite://"))
    rows, now = Statements(scheduled_functions_table(sa.MetaData()), dialect), DateTime.now()

    asked = plan(db, lambda: rows.oldest_due(db.connection, now=now, ahead=now + Duration.seconds(2)))
    assert "next_at" in asked and "scheduled_functions" in asked and not sorts(asked), asked
    assert "SCAN" not in asked and "Seq Scan" not in asked, asked
