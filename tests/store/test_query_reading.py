"""Reading: tables and documents, orders, pages that neither lose nor repeat a row, cursors that nobody can abuse."""

from __future__ import annotations

import base64
import json
import uuid
from contextlib import suppress
from typing import Any

import pytest
import sqlalchemy as sa

from confect_celery.errors import InvalidFilter, NotFound, NotUnique, UnknownTable
from confect_celery.store import Document
from confect_celery.store.query import cursor as cursors
from confect_celery.timing import DateTime, Duration
from tests.store.query_tables import Tables, ids

AT = DateTime.parse("2026-03-08T12:00:00.123456Z")


def pages(query: Any, size: int) -> list[str]:
    found, cursor = [], None
    while True:
        page = query.paginate(size, cursor)
        assert page.is_done is (page.cursor is None)
        found += ids(page.items)
        if page.is_done:
            return found
        cursor = page.cursor


def test_get_find_first_unique_take_count_and_iteration(db: Tables) -> None:
    db.people(*({"age": age} for age in (3, 1, 2, 1)))
    people = db.table("people")
    assert people.get("1").age == 1
    assert people.find("9") is None
    assert people.find(None) is None
    with pytest.raises(NotFound):
        people.get("9")
    assert people.order("desc").first() == people.get("3")
    ones = people.filter(lambda q: q.eq(q.field("age"), 1))
    with pytest.raises(NotUnique):
        ones.unique()
    assert people.filter(lambda q: q.eq(q.field("age"), 3)).unique() == people.get("0")
    assert people.filter(lambda q: q.eq(q.field("age"), 9)).unique() is None
    assert people.filter(lambda q: q.eq(q.field("age"), 9)).first() is None
    assert (ids(people.take(2)), people.take(0), len(people.take(10**30))) == (["0", "1"], [], 4)
    assert (people.count(), ones.count()) == (4, 2)
    assert ids(people) == ids(people.collect()) == ["0", "1", "2", "3"]
    for bad in (-1, 1.5, "1", True, None):
        with pytest.raises(InvalidFilter):
            people.take(bad)  # type: ignore[arg-type]


def test_a_loop_may_read_and_write_the_same_table(db: Tables) -> None:
    db.people(*({"age": n} for n in range(3)))
    seen = []
    for person in db.table("people"):
        seen.append(person.id)
        db.table("people").insert({"id": f"{person.id}+", "age": db.table("people").count()})
        if len(seen) == 1:
            db.table("people").delete("2")
    assert seen == ["0", "1", "2"]
    for _ in db.table("people"):
        break  # a loop that is left half-way is no burden to what follows
    assert db.table("people").count() == 5


@pytest.mark.parametrize("id", [0, 1.0, True, b"0", ["0"], {"id": "0"}, "\0", "\ud800"])
def test_an_id_of_another_kind_never_reaches_the_database(db: Tables, id: Any) -> None:
    db.people({})
    people = db.table("people")
    for use in (people.get, people.find, people.delete, lambda id: people.patch(id, {"age": 1})):
        with pytest.raises(InvalidFilter):
            use(id)
    assert people.count() == 1


def test_composite_keys_and_tables_without_one(db: Tables) -> None:
    members, logs = db.table("members"), db.table("logs")
    assert members.insert({"team": "b", "seat": 1}) == ("b", 1)
    for team, seat in (("a", 2), ("a", 1)):
        members.insert({"team": team, "seat": seat, "role": "x"})
    assert members.get(("a", 2)).role == "x"
    assert [(m.team, m.seat) for m in members] == [("a", 1), ("a", 2), ("b", 1)]
    first = members.order("desc").paginate(2)
    assert [(m.team, m.seat) for m in first.items] == [("b", 1), ("a", 2)]
    assert [(m.team, m.seat) for m in members.order("desc").paginate(2, first.cursor).items] == [("a", 1)]
    members.patch(("a", 1), {"role": "y"})
    members.delete(("a", 2))
    assert [m.role for m in members.order("asc", by="role")] == ["y", None]
    assert logs.insert({"line": "one"}) is None
    assert (logs.count(), logs.first()) == (1, Document("logs", {"line": "one"}))
    for use in (lambda: members.get("a"), lambda: members.get(("a",)), lambda: logs.get(1), lambda: logs.paginate(1)):
        with pytest.raises(InvalidFilter):
            use()


def test_a_table_that_only_the_database_knows(own_db: Tables) -> None:
    db = own_db
    db.connection.exec_driver_sql("CREATE TABLE told (id INTEGER PRIMARY KEY, doc JSON, flag BOOLEAN)")
    table = db.table("told")
    table.insert({"id": 1, "doc": {"a": [1, {"b": "x"}]}, "flag": True})
    found = db.table("told").filter(lambda q: q.and_(q.eq(q.field("doc.a.1.b"), "x"), q.eq(q.field("flag"), True)))
    assert dict(found.first() or {}) == {"id": 1, "doc": {"a": [1, {"b": "x"}]}, "flag": True}
    db.table("reflected").insert({"id": 7, "label": "seven", "at": AT})
    assert abs(db.table("reflected").get(7).at - AT) < Duration.seconds(1)
    db.connection.exec_driver_sql("CREATE VIEW labels AS SELECT label FROM reflected")
    assert [row.label for row in db.table("labels")] == ["seven"]


def test_names_of_tables(db: Tables) -> None:
    with pytest.raises(UnknownTable) as caught:
        db.table("poeple")
    assert caught.value.close == ("people",)
    bad = [
        "",
        ".",
        "x.",
        "nowhere.people",
        'people"; DROP TABLE people; --',
        "people WHERE 1=1",
        "a`b",
        "\0",
        "x" * 300,
    ]
    for name in [*bad, "main._scheduled_functions", "public._scheduled_functions", "_SCHEDULED_FUNCTIONS", None]:
        with pytest.raises(UnknownTable):
            db.table(name)  # type: ignore[arg-type]
    default = sa.inspect(db.connection).default_schema_name
    db.people({})
    assert db.table(f"{default}.people").count() == 1
    if db.connection.dialect.name == "postgresql":
        db.connection.exec_driver_sql('CREATE SCHEMA "Odd.one"; CREATE TABLE "Odd.one".t (id int PRIMARY KEY)')
        db.table("Odd.one.t").insert({"id": 1})
        assert db.table("Odd.one.t").get(1).id == 1


VALUES: dict[str, list[Any]] = {
    **{"age": [2, 1], "name": ["b", "B"], "score": [0.1, 2.5], "seen": [AT, AT + Duration.micros(1)]},
    **{"born": [AT, AT - Duration.days(1)], "wait": [Duration.hours(1), Duration.zero], "mood": ["good", "bad"]},
    **{"verified": [True, False], "token": [uuid.UUID(int=5), uuid.UUID(int=1 << 90)]},
}


@pytest.mark.parametrize("direction", ["asc", "desc"])
def test_pages_keep_the_order_and_lose_nothing(db: Tables, direction: Any) -> None:
    db.people(*([{name: values[n] for name, values in VALUES.items()} for n in (0, 1)] * 2), {}, {})
    for field, values in VALUES.items():
        query = db.table("people").order(direction, by=field)
        whole = query.collect()
        found = [row[field] for row in whole]
        assert found == [*sorted(values * 2, reverse=direction == "desc"), None, None], field
        for size in (1, 2, 3, 100):
            assert pages(query, size) == ids(whole), (field, size)


@pytest.mark.parametrize("direction", ["asc", "desc"])
def test_pages_by_a_place_inside_json(db: Tables, direction: Any) -> None:
    values = ["é", "e", 2**53 + 1, 2**53, 0.1, None, True, []]
    db.people(*({"data": {"v": value}} for value in values * 2), {"data": {}}, {})
    query = db.table("people").order(direction, by="data.v")
    whole = [row.data for row in query.collect()]
    found = [row["v"] for row in whole[:12] if row]
    rising = [value for value in (0.1, True, 2**53, 2**53 + 1, "e", "é") for _ in (1, 2)]
    assert found == (rising if direction == "asc" else rising[::-1])
    for size in (1, 5):
        assert pages(query, size) == ids(query.collect())


def test_rows_that_come_and_go_between_pages(db: Tables) -> None:
    db.people(*({"age": age} for age in (10, 20, 20, 30, None)))
    query = db.table("people").order("asc", by="age")
    page = query.paginate(2)
    assert ids(page.items) == ["0", "1"]
    for id, age in (("00", 5), ("11", 20), ("x", 25)):
        db.table("people").insert({"id": id, "age": age})
    db.table("people").delete("1")  # the row that the cursor stands on
    assert ids(query.paginate(9, page.cursor).items) == ["11", "2", "x", "3", "4"]
    last = query.paginate(6)
    assert ids(query.paginate(9, last.cursor).items) == ["4"]


def test_no_text_but_a_cursor_of_the_query_is_taken(db: Tables) -> None:
    db.people(*({"age": n, "name": "x"} for n in range(3)))
    query = db.table("people").order("asc", by="age")
    good = query.paginate(1).cursor
    assert good is not None
    body = base64.urlsafe_b64encode(b'[1,"0"]').decode()
    others = [db.table("people").paginate(1).cursor, db.table("people").order("desc", by="age").paginate(1).cursor]
    texts: list[Any] = ["", "x", "é", "\ud800", "null", body, good + "A", good[:-1], good[1:], good.lower(), *others]
    for text in [*texts, "W10=", base64.b64encode(b"[" * 100_000).decode(), 5, b"x", ["x"], True]:
        with pytest.raises(InvalidFilter):
            query.paginate(1, text)
    assert db.table("people").count() == 3  # the transaction is none the worse for it


def test_a_forged_cursor_comes_to_no_error_of_the_database(db: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    db.people({"age": 1, "name": "x", "seen": AT})
    monkeypatch.setattr(cursors, "_seal", lambda order, body: b"12345678")  # as if the seal were found out
    odd = [None, True, 1, 2**70, -1.5, 1e308, "x", "a\0", "\ud800", [1], {}, {"a": 1}, {"decimal": "NaN"}]
    odd += [{"decimal": "1e99999"}, {"uuid": "x"}, {"micros": 1e300}, {"bytes": "zz"}, {"datetime": "2026-01-01"}]
    odd += [{"date": "2026-01-01"}, {"time": "00:00"}, {"datetime": "2026-01-01T00:00:00+00:00"}, float("nan")]
    for field in (*VALUES, "data.v", "id"):
        query = db.table("people").order("asc", by=field)
        width = len(query._keys())
        for value in odd:
            for row in ([value] * width, [value], [None, value], [value] * (width - 1) + ["0"], value):
                text = base64.urlsafe_b64encode(b"12345678" + json.dumps(row).encode()).decode()
                with suppress(InvalidFilter):
                    query.paginate(1, text)
    assert db.table("people").count() == 1


@pytest.mark.parametrize("use", ["asc; DROP TABLE people", "ASC", "", None, 1])
def test_directions_and_orders_are_checked(db: Tables, use: Any) -> None:
    with pytest.raises(InvalidFilter):
        db.table("people").order(use)
    with pytest.raises(InvalidFilter):
        db.table("people").order("asc", by="data")
    with pytest.raises(InvalidFilter):
        db.table("people").order("asc", by="name.x")
