"""Pages: every row once and in order, whatever is added or removed between them."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from confect_celery.errors import InvalidFilter
from confect_celery.store.query import Query
from confect_celery.timing import DateTime, Duration
from tests.store.query_tables import METADATA, Tables, ids


def pages(query: Query[Any], size: int) -> list[Any]:
    """The ids of all pages, one after the other."""
    found: list[Any] = []
    cursor = None
    for _ in range(100):
        page = query.paginate(size, cursor)
        found += ids(page.items)
        assert page.is_done is (page.cursor is None)
        if page.cursor is None:
            return found
        assert len(page.items) == size
        cursor = page.cursor
    raise AssertionError("the pages do not end")


AT = DateTime.parse("2026-03-08T12:00:00Z")
ORDERS: dict[str, list[Any]] = {
    "age": [3, None, 1, 3, -5, None, 0, 3],
    "name": ["b", "", None, "a'\"\\", "b", "a"],
    "score": [0.1, 0.2, 0.3, None, 0.1, 1e30, -0.7],
    "verified": [True, False, None, True, False],
    "mood": ["good", "bad", None, "good", "bad"],
    "seen": [AT, AT + Duration.micros(1), None, AT, AT - Duration.days(9000)],
    "born": [AT, AT + Duration.micros(1), None, AT, AT - Duration.days(9000)],
    "wait": [Duration.days(3), None, Duration.micros(1), Duration.days(3)],
    "data": [{"v": v} for v in ("b", 2, "2", None, 0.1, True, "b", [], 0.1, 10)],
}


@pytest.mark.parametrize("direction", ["asc", "desc"])
@pytest.mark.parametrize("column", ORDERS)
def test_pages_by_any_column_are_the_whole_in_order(db: Tables, column: str, direction: Any) -> None:
    db.people(*({column: value} for value in ORDERS[column]))
    query = db.table("people").order(direction, by="data.v" if column == "data" else column)
    whole = ids(query.collect())
    assert sorted(whole) == [str(n) for n in range(len(ORDERS[column]))]
    for size in (1, 2, 3, 100):
        assert pages(query, size) == whole


ages = st.none() | st.integers(-2, 2)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    before=st.lists(ages, max_size=12),
    between=st.lists(st.tuples(ages, st.booleans()), max_size=12),
    size=st.integers(1, 4),
    direction=st.sampled_from(["asc", "desc"]),
    by=st.sampled_from(["age", "data.v", None]),
)
def test_rows_added_and_removed_between_pages_neither_repeat_nor_hide_others(
    db: Tables, before: list[int | None], between: list[tuple[int | None, bool]], size: int, direction: Any, by: Any
) -> None:
    db.connection.execute(sa.delete(METADATA.tables["people"]))
    people = db.table("people")
    for number, age in enumerate(before):
        people.insert({"id": f"old {number:02}", "age": age, "data": {"v": age}})
    query = people.order(direction, by=by)
    expected = ids(query.collect())
    changes = iter(enumerate(between))
    found: list[str] = []
    removed: set[str] = set()
    cursor = None
    while True:
        page = query.paginate(size, cursor)
        found += ids(page.items)
        if page.cursor is None:
            break
        cursor = page.cursor
        change = next(changes, None)
        if change is not None:
            number, (age, remove_the_last) = change
            people.insert({"id": f"{'mn'[number % 2]}ew {number:02}", "age": age, "data": {"v": age}})
            if remove_the_last:  # the very row that the cursor stands on
                people.delete(found[-1])
                removed.add(found[-1])
    assert len(found) == len(set(found))
    assert [id for id in found if id.startswith("old")] == expected


def test_pages_of_a_filtered_query_and_of_composite_keys(db: Tables) -> None:
    for team in "ab":
        for seat in range(5):
            db.table("members").insert({"team": team, "seat": seat, "role": "xy"[seat % 2]})
    query = db.table("members").filter(lambda q: q.eq(q.field("role"), "x")).order("desc", by="role")
    first = query.paginate(4)
    second = query.paginate(4, first.cursor)
    found = [(row.team, row.seat) for row in (*first.items, *second.items)]
    assert found == [("b", 4), ("b", 2), ("b", 0), ("a", 4), ("a", 2), ("a", 0)]
    assert second.is_done


def test_a_last_full_page_is_done(db: Tables) -> None:
    db.people({}, {})
    assert db.table("people").paginate(2).is_done
    assert db.table("people").filter(lambda q: q.or_()).paginate(2).items == []


def test_cursors_are_url_safe_and_sealed(db: Tables) -> None:
    db.people(*({"name": "ÿ?>~\0"[:4] * n, "age": n} for n in range(3)))
    query = db.table("people").order("asc", by="name")
    cursor = query.paginate(2).cursor
    assert cursor is not None
    assert re.fullmatch(r"[A-Za-z0-9_-]+", cursor)
    strangers = [
        *("", "x", "é", "=" * 8, "[" * 10_000, cursor[:-4], cursor[4:], cursor + "AAAA", cursor.swapcase()),
        db.table("people").order("desc", by="name").paginate(1).cursor,
        db.table("people").order("asc", by="age").paginate(1).cursor,
        db.table("people").paginate(1).cursor,
    ]
    for stranger in strangers:
        assert stranger is not None
        with pytest.raises(InvalidFilter):
            query.paginate(2, stranger)
    for other in (7, b"x", ["x"]):
        with pytest.raises(InvalidFilter):
            query.paginate(2, other)  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [0, -1])
def test_a_page_has_a_size(db: Tables, size: int) -> None:
    with pytest.raises(InvalidFilter):
        db.table("people").paginate(size)


@pytest.mark.parametrize("db", ["postgresql", "mariadb"], indirect=True)  # SQLite has no decimals
def test_decimals(db: Tables) -> None:
    table = sa.Table(
        "prices", sa.MetaData(), sa.Column("id", sa.Integer, primary_key=True), sa.Column("p", sa.Numeric(30, 20))
    )
    table.create(db.connection)
    prices = db.table("prices")
    for n in range(1, 6):  # MySQL takes id 0 for "the next one"
        prices.insert({"id": n, "p": Decimal(f"0.{n % 3}0000000000000000001")})
    assert pages(prices.order("asc", by="p"), 2) == [3, 1, 4, 2, 5]
    assert prices.filter(lambda q: q.eq(q.field("p"), Decimal("0.10000000000000000001"))).count() == 2
