"""Filters and orders by places inside JSON: kinds as JSON has them, any key, absent as null."""

from __future__ import annotations

import operator
import uuid
from decimal import Decimal
from typing import Any

import pytest
import sqlalchemy as sa

from confect_celery.errors import InvalidFilter
from confect_celery.timing import DateTime, Duration
from tests.store.query_tables import Tables


@pytest.fixture(params=["data", "binary_data"])  # json and jsonb on PostgreSQL
def column(request: pytest.FixtureRequest) -> str:
    return str(request.param)


ABSENT = object()
TEXTS = ["", "1", "1.0", "true", "null", "a", "A", "a ", "é", "𝔘", "x'y\"z\\", "%s", "{}"]
NUMBERS = [0, 1, 1.5, -2, 10, 9, 0.1, 0.1 + 0.2, 1e300, 5e-324, 2**53, 2**53 + 1, -(2**63), 2**63 - 1]
STORED = [ABSENT, None, True, False, *TEXTS, *NUMBERS, [], [1], {}, {"v": 1}]
OPERANDS = [None, True, False, *TEXTS, *NUMBERS, 1.0, -2.0, Decimal(1), Decimal("1.5"), Decimal("0.1"), 2**53 + 3]


def kind(value: Any) -> type | None:
    if isinstance(value, (int, float, Decimal)) and not isinstance(value, bool):
        return float
    return type(value) if isinstance(value, (str, bool)) else None


def equal(stored: Any, value: Any) -> bool:
    if value is None:
        return stored is None or stored is ABSENT
    if isinstance(value, Decimal) and isinstance(stored, str):
        return stored == str(value)  # as pydantic writes it
    if kind(stored) is not kind(value):
        return False
    # JSON has no decimals but those that its floats are written as.
    return bool((Decimal(repr(stored)) if isinstance(stored, float) else stored) == _decimal(value))


def _decimal(value: Any) -> Any:
    return Decimal(repr(value)) if isinstance(value, float) else value


def test_equality_goes_by_kind_and_value(db: Tables, column: str) -> None:
    db.people(*({column: {} if value is ABSENT else {"v": value}} for value in STORED))
    for value in OPERANDS:
        expected = [n for n, stored in enumerate(STORED) if equal(stored, value)]
        others = [n for n in range(len(STORED)) if n not in expected]
        assert db.who(lambda q, v=value: q.eq(q.field(f"{column}.v"), v)) == expected, value
        assert db.who(lambda q, v=value: q.neq(q.field(f"{column}.v"), v)) == others, value
        assert db.who(lambda q, v=value: q.in_(q.field(f"{column}.v"), [v])) == expected, value
    some = [None, "a", 1, True]
    expected = [n for n, stored in enumerate(STORED) if any(equal(stored, value) for value in some)]
    assert db.who(lambda q: q.in_(q.field(f"{column}.v"), some)) == expected


@pytest.mark.parametrize("name", ["lt", "lte", "gt", "gte"])
def test_order_goes_by_kind_and_value(db: Tables, column: str, name: str) -> None:
    compare = {"lt": operator.lt, "lte": operator.le, "gt": operator.gt, "gte": operator.ge}[name]
    db.people(*({column: {} if value is ABSENT else {"v": value}} for value in STORED))
    for value in [*TEXTS, *(n for n in NUMBERS if abs(n) < 2**53)]:
        expected = [
            n
            for n, stored in enumerate(STORED)
            if kind(stored) is kind(value) and kind(stored) in (str, float) and compare(stored, value)
        ]
        assert db.who(lambda q, v=value: getattr(q, name)(q.field(f"{column}.v"), v)) == expected, value


KEYS = [
    "a",
    "a.b",
    "a b",
    "",
    "0",
    "é",
    "𝔘",
    'q"t',
    "b\\s",
    "x'",
    "a,b",
    "{x}",
    "[0]",
    "$",
    "%s",
    ":p",
    "?",
    "t\n",
    "/",
]


@pytest.mark.parametrize("key", [*KEYS, "') OR 1=1 --", '"] OR 1=1 --', "}' OR '1'='1"])
def test_any_key_can_be_reached(db: Tables, column: str, key: str) -> None:
    db.people({column: {key: 1, "in": {key: {key: "v"}}}}, {column: {"other": 1}}, {column: [1, {key: 1}]}, {})
    assert db.who(lambda q: q.eq(q.field((column, key)), 1)) == [0]
    assert db.who(lambda q: q.eq(q.field((column, "in", key, key)), "v")) == [0]
    assert db.who(lambda q: q.eq(q.field((column, 1, key)), 1)) == [2]
    assert db.who(lambda q: q.eq(q.field((column, key)), None)) == [1, 2, 3]
    assert db.who(lambda q: q.neq(q.field((column, "in", key, key)), None)) == [0]


def test_keys_that_others_wrote_unescaped(db: Tables) -> None:
    db.people({})
    text = '{"é": {"𝔘": 1}}'
    cast = ":d" if db.connection.dialect.name != "postgresql" else "cast(:d as json)"
    db.connection.execute(sa.text(f"UPDATE people SET data = {cast}"), {"d": text})  # noqa: S608
    assert db.who(lambda q: q.eq(q.field("data.é.𝔘"), 1)) == [0]


def test_indices_and_keys_of_digits(db: Tables, column: str) -> None:
    db.people({column: {"l": ["p", ["q", {"k": 7}]]}}, {column: {"l": {"1": "p", "0": "q"}}}, {column: {"l": "p"}})
    assert db.who(lambda q: q.eq(q.field(f"{column}.l.0"), "p")) == [0]
    assert db.who(lambda q: q.eq(q.field(f"{column}.l.1.1.k"), 7)) == [0]
    assert db.who(lambda q: q.eq(q.field(f"{column}.l.9"), None)) == [0, 1, 2]
    assert db.who(lambda q: q.eq(q.field((column, "l", "1")), "p")) == [1]
    assert db.who(lambda q: q.eq(q.field((column, "l", 0)), "q")) == []
    assert db.who(lambda q: q.eq(q.field(f"{column}.l.²"), 1)) == []


def test_a_text_that_holds_json_is_not_looked_into(db: Tables, column: str) -> None:
    db.people({column: {"é": '{"a": 1}', "t": '{"a": 1}'}})
    assert db.who(lambda q: q.eq(q.field(f"{column}.é.a"), 1)) == []
    assert db.who(lambda q: q.eq(q.field(f"{column}.t.a"), 1)) == []


def test_a_column_called_state_is_an_ordinary_one_in_ordinary_tables(db: Tables) -> None:
    db.people({"state": {"kind": "pending"}}, {"state": {"kind": "failed"}})
    assert db.who(lambda q: q.eq(q.field("state.kind"), "pending")) == [0]


def test_places_against_each_other_and_against_columns(db: Tables, column: str) -> None:
    db.people(
        {column: {"a": 1, "b": 1.0}, "age": 1, "name": "1", "verified": True},
        {column: {"a": "1", "b": 1}, "age": 1, "name": "1", "verified": True},
        {column: {"a": True, "b": True}, "age": 1, "name": "true", "verified": True},
        {column: {"a": None}, "age": None, "name": None, "verified": None},
        {column: {"a": 2, "b": 10}, "age": 3, "name": "b", "verified": False},
        {column: {"a": "a", "b": "b"}, "age": 3, "name": "b", "verified": False},
    )
    a = f"{column}.a"
    assert db.who(lambda q: q.eq(q.field(a), q.field(f"{column}.b"))) == [0, 2, 3]
    assert db.who(lambda q: q.neq(q.field(a), q.field(f"{column}.b"))) == [1, 4, 5]
    assert db.who(lambda q: q.lt(q.field(a), q.field(f"{column}.b"))) == [4, 5]
    assert db.who(lambda q: q.eq(q.field(a), q.field("age"))) == [0, 3]
    assert db.who(lambda q: q.eq(q.field("name"), q.field(a))) == [1, 3]
    assert db.who(lambda q: q.eq(q.field(a), q.field("verified"))) == [2, 3]
    assert db.who(lambda q: q.lt(q.field(a), q.field("age"))) == [4]
    assert db.who(lambda q: q.gt(q.field("name"), q.field(a))) == [5]
    with pytest.raises(InvalidFilter):
        db.table("people").filter(lambda q: q.eq(q.field(a), q.field("seen")))
    with pytest.raises(InvalidFilter):
        db.table("people").filter(lambda q: q.gt(q.field(a), q.field("verified")))


def test_times_and_uuids_inside_json_are_their_texts(db: Tables, column: str) -> None:
    at, token = DateTime.parse("2026-01-01T00:00:00Z"), uuid.uuid4()
    db.people({column: {"at": at, "token": token}})
    assert db.table("people").get("0")[column] == {"at": at.to_iso(), "token": str(token)}
    assert db.who(lambda q: q.and_(q.eq(q.field(f"{column}.at"), at), q.in_(q.field(f"{column}.token"), [token]))) == [
        0
    ]


@pytest.mark.parametrize(
    "value", [[], {}, [1], (1,), b"a", object(), float("nan"), float("inf"), Decimal("NaN"), Decimal("sNaN")]
)
@pytest.mark.parametrize("operation", ["eq", "neq", "lt", "in_"])
def test_other_values_are_refused(db: Tables, value: object, operation: str) -> None:
    with pytest.raises(InvalidFilter):
        operand = [value] if operation == "in_" else value
        db.table("people").filter(lambda q: getattr(q, operation)(q.field("data.v"), operand))


@pytest.mark.parametrize("value", [True, None, DateTime.parse("2026-01-01T00:00:00Z"), Duration.hours(1), Decimal(1)])
def test_what_has_no_order_inside_json_is_refused(db: Tables, value: object) -> None:
    with pytest.raises(InvalidFilter):
        db.table("people").filter(lambda q: q.gte(q.field("data.v"), value))


def test_order_by_a_place_inside_json(db: Tables, column: str) -> None:
    db.people(*({column: {"v": v}} for v in ["b", 10, "10", 9, None, 0.5, "a", True, False, [1], {}, 9]), {})
    people = db.table("people")
    rising = [8, 5, 7, 11, 3, 1, 2, 6, 0]
    absent = {4, 9, 10, 12}
    found = [int(p.id) for p in people.order("asc", by=f"{column}.v").collect()]
    assert found[:-4] == rising
    assert set(found[-4:]) == absent
    found = [int(p.id) for p in people.order("desc", by=f"{column}.v").collect()]
    assert found[:-4] == rising[::-1]
    assert set(found[-4:]) == absent
