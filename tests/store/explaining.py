"""What the database really did for a call: the plans of its statements, and how much they read.

PostgreSQL tells it itself (`auto_explain`), of the very statements that psycopg prepared: nothing is retyped or run
again. MariaDB counts the rows that it reads, SQLite the steps of its machine.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa

from confect_celery.store import Store
from tests.store.calls import Call, Tall

__all__ = ["buffers", "check", "reached"]

_PAGES_A_STATEMENT: Final = 100
_PAGES_A_ROW: Final = 25
_READS_A_STATEMENT: Final = 20
_READS_A_ROW: Final = 10  # the database may read its own intermediate tables several times
_STEPS_A_STATEMENT: Final = 2_000
_STEPS_A_ROW: Final = 200
_SCANS: Final = ("Seq Scan", "Parallel Seq Scan", "Sample Scan")

_TELL: Final = {
    "log_min_duration": "0",
    "log_analyze": "on",
    "log_buffers": "on",
    "log_timing": "off",
    "log_format": "json",
    "log_level": "notice",
}


@dataclass(frozen=True)
class Work:
    """One statement: its text, how the table was reached, and what that took."""

    sql: str
    reached: tuple[str, ...]
    """The kinds of nodes that read the table, with the index."""
    conditions: str
    buffers: int
    """Pages of 8 KiB that were looked at."""
    removed: int
    """Rows that were read only to be thrown away."""
    plan: str


def _nodes(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield node
    for inner in node.get("Plans", ()):
        yield from _nodes(inner)


def _work(told: dict[str, Any]) -> Work:
    top = told["Plan"]
    nodes = list(_nodes(top))
    reached = [
        f"{node['Node Type']} {node.get('Index Name', '')}".strip() for node in nodes if "Scan" in node["Node Type"]
    ]
    removed = sum(
        node.get(what, 0) * node.get("Actual Loops", 1)
        for node in nodes
        for what in ("Rows Removed by Filter", "Rows Removed by Index Recheck")
    )
    conditions = " ".join(str(node.get(key, "")) for node in nodes for key in ("Index Cond", "Filter"))
    buffers = top["Shared Hit Blocks"] + top["Shared Read Blocks"]
    return Work(told["Query Text"], tuple(reached), conditions, buffers, int(removed), json.dumps(told, indent=1))


@contextmanager
def _postgresql(url: sa.URL, mode: str) -> Iterator[tuple[sa.Connection, Callable[[], list[Work]]]]:
    """A connection in a transaction that is rolled back, and what tells all that it has done. `mode` is a
    `plan_cache_mode`; every statement is prepared by the server, as psycopg prepares those it meets often."""
    engine = sa.create_engine(url, connect_args={"prepare_threshold": 0}, poolclass=sa.NullPool)
    worked: list[Work] = []

    def tell(notice: Any) -> None:
        _, found, plan = (notice.message_primary or "").partition("plan:\n")
        if found:
            worked.append(_work(json.loads(plan)))

    def told() -> list[Work]:
        connection.exec_driver_sql("SELECT 1")  # a query tells its plan when the next statement takes its place
        return list(worked)

    try:
        with engine.connect() as connection:
            connection.exec_driver_sql("LOAD 'auto_explain'")
            connection.exec_driver_sql(f"SET plan_cache_mode = {mode}")
            for setting, value in _TELL.items():
                connection.exec_driver_sql(f"SET auto_explain.{setting} = '{value}'")
            connection.commit()
            connection.connection.driver_connection.add_notice_handler(tell)  # type: ignore[union-attr]
            worked.clear()
            with connection.begin() as transaction:
                yield connection, told
                transaction.rollback()
    finally:
        engine.dispose()


@contextmanager
def _rolled_back(store: Store) -> Iterator[sa.Connection]:
    with store.database.engine.connect() as connection, connection.begin() as transaction:
        yield connection
        transaction.rollback()


def check(tall: Tall, call: Call) -> None:
    """The call finds what it should, reaches the table by an index, and reads only about what it finds. PostgreSQL is
    asked with plans made for the parameters at hand, and with those made for any."""
    kind = tall.store.database.url.get_backend_name()
    if kind == "sqlite":
        _on_sqlite(tall, call)
    elif kind == "postgresql":
        _on_postgresql(tall, call, "custom")
        _on_postgresql(tall, call, "generic")
    else:
        _on_mariadb(tall, call)


def _on_postgresql(tall: Tall, call: Call, plans: str) -> None:
    with _postgresql(tall.store.database.url, f"force_{plans}_plan") as (connection, told):
        assert call.found(call.run(tall, connection))
        worked = told()
    assert worked or call.name.startswith("insert")  # COPY has no plan
    for work in worked:
        assert not [kind for kind in work.reached if kind.startswith(_SCANS)], work.plan
        assert work.removed <= call.rows + 10, work.plan
        assert work.buffers <= _PAGES_A_STATEMENT + _PAGES_A_ROW * call.rows, work.plan
        bound = "$" in work.sql.partition("WHERE")[2].partition("LIMIT")[0]
        if plans == "generic" and work.reached and bound:
            assert "$" in work.conditions, work.plan  # else it was made for the parameters at hand


def reached(tall: Tall, call: Call, plans: str) -> set[str]:
    """How PostgreSQL comes to the rows of the table, with `custom` or `generic` plans: the kinds of scans, each with
    its index."""
    with _postgresql(tall.store.database.url, f"force_{plans}_plan") as (connection, told):
        assert call.found(call.run(tall, connection))
        return {each for work in told() for each in work.reached if not each.startswith("CTE")}


def buffers(tall: Tall, run: Callable[[sa.Connection], bool]) -> int:
    """How many pages PostgreSQL looks at for what `run` does, which must give back True."""
    with _postgresql(tall.store.database.url, "auto") as (connection, told):
        assert run(connection)
        return sum(work.buffers for work in told())


def _on_sqlite(tall: Tall, call: Call) -> None:
    steps, plans = 0, []

    def step() -> int:
        nonlocal steps
        steps += 100
        return 0

    def explain(_connection: Any, _cursor: Any, sql: str, parameters: Any, _context: Any, many: bool) -> None:
        rows = raw.execute(f"EXPLAIN QUERY PLAN {sql}", parameters[0] if many else parameters)
        plans.extend((row[3], sql) for row in rows)

    with _rolled_back(tall.store) as connection:
        raw: Any = connection.connection.driver_connection
        sa.event.listen(connection, "before_cursor_execute", explain)
        raw.set_progress_handler(step, 100)
        try:
            found = call.run(tall, connection)
        finally:
            raw.set_progress_handler(None, 0)
    assert call.found(found)
    assert not [plan for plan in plans if plan[0].startswith("SCAN _scheduled") and "USING" not in plan[0]], plans
    assert steps <= _STEPS_A_STATEMENT + _STEPS_A_ROW * call.rows, (steps, plans)


def _on_mariadb(tall: Tall, call: Call) -> None:
    def read() -> int:
        rows = connection.exec_driver_sql("SHOW SESSION STATUS LIKE 'Handler_read%%'").all()
        return sum(int(count) for _, count in rows)

    with _rolled_back(tall.store) as connection:
        before, asking = read(), read()
        found = call.run(tall, connection)
        reads = read() - asking - (asking - before)
    assert call.found(found)
    assert reads <= _READS_A_STATEMENT + _READS_A_ROW * call.rows, reads
