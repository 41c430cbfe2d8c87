"""Filters by columns: every operator on every database, NULLs as Python sees None, and nothing of a name in the SQL."""

from __future__ import annotations

import datetime as dt
import enum
import operator
import uuid
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest

from confect_celery.errors import InvalidFilter, NaiveDateTime, UnknownField
from confect_celery.store.query import Filter
from confect_celery.timing import DateTime, Duration
from tests.store.query_tables import Tables

OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "eq": operator.eq,
    "neq": operator.ne,
    "lt": operator.lt,
    "lte": operator.le,
    "gt": operator.gt,
    "gte": operator.ge,
}
AT = DateTime.parse("2026-03-08T12:00:00.123456Z")
U1, U2, U3 = (uuid.UUID(int=n << 64) for n in (1, 2, 3))


class Mood(enum.StrEnum):
    BAD = "bad"
    GOOD = "good"


VALUES: dict[str, list[Any]] = {
    "name": ["", "anna", "zoe", 'Zoé\'s "50%" \\ ; --', "𝔘"],
    "age": [-1, 0, 1, 2**31 - 1],
    "score": [-0.5, 0.0, 2.5],
    "seen": [AT, AT + Duration.micros(1), AT + Duration.days(3650)],
    "born": [AT, AT + Duration.micros(1), AT - Duration.days(3650)],
    "wait": [Duration.zero, Duration.seconds(90), Duration.days(40)],
    "token": [U1, U2, U3],
}


@pytest.mark.parametrize("column", VALUES)
def test_operators_on_columns_agree_with_python(db: Tables, column: str) -> None:
    values = VALUES[column]
    db.people(*({column: value} for value in [*values, None]))
    for name, compare in OPERATORS.items():
        for value in values:
            expected = [n for n, stored in enumerate(values) if compare(stored, value)]
            expected += [len(values)] if name == "neq" else []
            assert db.who(lambda q, v=value, op=name: getattr(q, op)(q.field(column), v)) == expected, (name, value)
            mirrored = {"lt": "gt", "lte": "gte", "gt": "lt", "gte": "lte"}.get(name, name)
            assert db.who(lambda q, v=value, op=mirrored: getattr(q, op)(v, q.field(column))) == expected


def test_none_is_null(db: Tables) -> None:
    db.people({"age": None, "data": None}, {"age": 0, "data": {}}, {"age": 1})
    assert db.who(lambda q: q.eq(q.field("age"), None)) == [0]
    assert db.who(lambda q: q.eq(None, q.field("age"))) == [0]
    assert db.who(lambda q: q.neq(q.field("age"), None)) == [1, 2]
    assert db.who(lambda q: q.in_(q.field("age"), [None, 1])) == [0, 2]
    assert db.who(lambda q: q.not_(q.in_(q.field("age"), [1]))) == [0, 1]
    assert db.who(lambda q: q.not_(q.gt(q.field("age"), 0))) == [0, 1]
    assert db.who(lambda q: q.eq(q.field("data"), None)) == [0, 2]  # JSON's null, and NULL
    assert db.who(lambda q: q.neq(q.field("data"), None)) == [1]


def test_and_or_not(db: Tables) -> None:
    db.people(*({"age": n, "shoe": n % 2} for n in range(6)))
    assert db.who(lambda q: q.and_(q.gte(q.field("age"), 1), q.lt(q.field("age"), 4), q.eq(q.field("shoe"), 1))) == [
        1,
        3,
    ]
    assert db.who(lambda q: q.or_(q.eq(q.field("age"), 0), q.eq(q.field("age"), 5))) == [0, 5]
    assert db.who(lambda q: q.not_(q.or_(q.eq(q.field("age"), 0), q.eq(q.field("shoe"), 1)))) == [2, 4]
    assert db.who(lambda q: q.and_()) == [0, 1, 2, 3, 4, 5]
    assert db.who(lambda q: q.or_()) == []
    assert db.who(lambda q: q.not_(q.and_())) == []
    several = db.table("people").filter(lambda q: q.gt(q.field("age"), 1)).filter(lambda q: q.eq(q.field("shoe"), 0))
    assert several.count() == 2


def test_in(db: Tables) -> None:
    db.people({"name": "a", "token": U1}, {"name": "b"}, {"name": None})
    assert db.who(lambda q: q.in_(q.field("name"), ["b", "c"])) == [1]
    assert db.who(lambda q: q.in_(q.field("name"), (n for n in "ab"))) == [0, 1]
    assert db.who(lambda q: q.in_(q.field("name"), [])) == []
    assert db.who(lambda q: q.not_(q.in_(q.field("name"), []))) == [0, 1, 2]
    assert db.who(lambda q: q.in_(q.field("token"), [str(U1), U2])) == [0]
    assert db.who(lambda q: q.in_(q.field("name"), [q.field("id"), "a"])) == [0]
    assert db.who(lambda q: q.in_(q.field("id"), [str(n) for n in range(3000)])) == [0, 1, 2]


def test_booleans_and_enums(db: Tables) -> None:
    db.people({"verified": True, "mood": "good", "name": "good"}, {"verified": False, "mood": "bad"}, {})
    assert db.who(lambda q: q.eq(q.field("verified"), True)) == [0]
    assert db.who(lambda q: q.neq(q.field("verified"), True)) == [1, 2]
    assert db.who(lambda q: q.eq(q.field("verified"), 0)) == [1]
    assert db.who(lambda q: q.eq(q.field("mood"), "good")) == [0]
    assert db.who(lambda q: q.eq(q.field("mood"), Mood.BAD)) == [1]
    assert db.who(lambda q: q.eq(q.field("name"), Mood.GOOD)) == [0]


def test_values_of_another_class_of_the_same_kind(db: Tables) -> None:
    db.people({"age": 2, "seen": AT, "wait": Duration.hours(1), "token": U1, "id": str(U2)})
    paris = AT.in_zone("Europe/Paris")
    for field, value in [
        *[("age", 2.0), ("age", Decimal(2)), ("seen", paris), ("seen", paris.to_datetime()), ("born", None)],
        *[("wait", dt.timedelta(hours=1)), ("token", str(U1)), ("token", U1.hex), ("id", U2)],
    ]:
        assert db.table("people").filter(lambda q, f=field, v=value: q.eq(q.field(f), v)).count() == 1, (field, value)


def test_texts_equal_only_themselves(db: Tables) -> None:
    db.people(*({"nick": nick} for nick in ("a", "A", "a ", "á", None)))
    assert db.who(lambda q: q.eq(q.field("nick"), "a")) == [0]
    assert db.who(lambda q: q.in_(q.field("nick"), ["A", "á"])) == [1, 3]
    assert db.who(lambda q: q.neq(q.field("nick"), "a ")) == [0, 1, 3, 4]
    assert db.table("people").find("0 ") is None


def test_columns_against_each_other(db: Tables) -> None:
    db.people({"age": 1, "shoe": 2}, {"age": 2, "shoe": 2}, {"age": 3, "shoe": 2}, {"age": 1}, {"age": None})
    found = {op: db.who(lambda q, op=op: getattr(q, op)(q.field("age"), q.field("shoe"))) for op in OPERATORS}
    assert found == {"eq": [1, 4], "neq": [0, 2, 3], "lt": [0], "lte": [0, 1], "gt": [2], "gte": [1, 2]}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *[("age", "1"), ("age", [1]), ("age", {"a": 1}), ("age", 2**63), ("age", float("nan")), ("age", AT)],
        *[("name", 1), ("name", True), ("name", b"a"), ("name", AT), ("verified", "true"), ("verified", 2)],
        *[("seen", "2026-01-01"), ("seen", dt.date(2026, 1, 1)), ("wait", 5), ("token", "no uuid"), ("token", 1)],
        *[("data", "a"), ("data", {"a": 1}), ("data", [1])],
    ],
)
@pytest.mark.parametrize("operation", ["eq", "neq", "lt", "in_"])
def test_a_value_of_another_kind_is_refused_before_the_database_sees_it(
    db: Tables, field: str, value: object, operation: str
) -> None:
    before = len(db.statements)
    with pytest.raises(InvalidFilter):
        operand = [value] if operation == "in_" else value
        db.table("people").filter(lambda q: getattr(q, operation)(q.field(field), operand))
    assert len(db.statements) == before


@pytest.mark.parametrize(
    "build",
    [
        lambda q: q.field("age") == 1,
        lambda q: True,
        lambda q: None,
        lambda q: q.field("age"),
        lambda q: q.and_(q.eq(q.field("age"), 1), q.field("name") == "a"),
        lambda q: q.not_(True),
        lambda q: q.eq(1, 1),
        lambda q: q.eq("age", 1),
        lambda q: q.lt(q.field("age"), None),
        lambda q: q.gt(q.field("verified"), False),
        lambda q: q.lt(q.field("age"), q.field("name")),
        lambda q: q.eq(q.field("age"), q.field("name")),
        lambda q: q.in_("age", [1]),
        lambda q: q.in_(q.field("name"), "abc"),
        lambda q: q.in_(q.field("age"), 1),
        lambda q: q.eq(q.field("age"), 1) and q.eq(q.field("name"), "a"),
        lambda q: q.field("name.first"),
        lambda q: q.field(("data", -1)),
        lambda q: q.field(("data", True)),
        lambda q: q.field(()),
        lambda q: q.field(None),
        lambda q: q.field(["data", "a"]),
    ],
)
def test_what_is_no_condition_is_refused(db: Tables, build: Callable[[Filter], Any]) -> None:
    with pytest.raises(InvalidFilter):
        db.table("people").filter(build)


def test_a_naive_time_is_refused(db: Tables) -> None:
    with pytest.raises(NaiveDateTime):
        db.table("people").filter(lambda q: q.gt(q.field("seen"), dt.datetime(2026, 1, 1)))  # noqa: DTZ001


@pytest.mark.parametrize("name", ["id; DROP TABLE people", "id = id OR 1", '"id"', "people.id", "", "id\0", "*", "ID "])
def test_names_are_looked_up_and_never_executed(db: Tables, name: str) -> None:
    db.people({})
    for use in (
        lambda: db.table("people").filter(lambda q: q.eq(q.field(name), "0")),
        lambda: db.table("people").order("asc", by=name),
        lambda: db.table("people").insert({name: 1}),
        lambda: db.table("people").patch("0", {name: 1}),
    ):
        with pytest.raises(UnknownField):
            use()
    assert db.table("people").count() == 1


def test_an_unknown_field_names_its_neighbours(db: Tables) -> None:
    with pytest.raises(UnknownField, match="'verified'") as caught:
        db.table("people").filter(lambda q: q.eq(q.field("verifed"), True))
    assert (caught.value.table, caught.value.field, caught.value.close) == ("people", "verifed", ("verified",))


def test_a_trailing_blank_counts_under_a_binary_collation_too(db: Tables) -> None:
    db.people(*({"name": name} for name in (None, None, None, "a ")))
    for _ in range(3):
        assert db.who(lambda q: q.eq(q.field("name"), "a")) == []
        assert db.who(lambda q: q.eq(q.field("name"), "a ")) == [3]


def test_a_column_in_another_character_set_is_compared_all_the_same(db: Tables) -> None:
    """MariaDB made `nick` in latin1, which cannot spell this."""
    db.people({"nick": "a"}, {"nick": None})
    text = "\U0001f600"
    assert db.who(lambda q: q.eq(q.field("nick"), text)) == []
    assert db.who(lambda q: q.in_(q.field("nick"), [text, "a"])) == [0]
    assert db.who(lambda q: q.or_(q.lt(q.field("nick"), text), q.gt(q.field("nick"), text))) == [0]
