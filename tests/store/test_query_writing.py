"""Writing: ids, defaults, round trips, missing rows, and the system table that nobody writes by hand."""

from __future__ import annotations

import datetime as dt
import enum
import uuid
from typing import Any

import pytest
import sqlalchemy as sa
from pydantic import BaseModel
from sqlalchemy.exc import IntegrityError

from confect_celery.errors import InvalidTime, NaiveDateTime, NotFound, SystemTableReadOnly, UnknownField
from confect_celery.store.query.writer import _needs_id
from confect_celery.timing import DateTime, Duration
from tests.store.query_tables import METADATA, Tables

AT = DateTime.parse("2026-03-08T12:00:00.123456Z")


class Color(enum.Enum):
    RED = "red"


class Address(BaseModel):
    city: str
    since: DateTime


class Person(BaseModel):
    id: str | None = None
    name: str
    age: int | None = 7
    data: Address | None = None


def test_ids_are_made_where_the_caller_gives_none(db: Tables) -> None:
    people = db.table("people")
    made = people.insert({"name": "anna"})
    assert uuid.UUID(made).version == 7
    assert people.get(made).name == "anna"
    assert people.insert({"id": "mine"}) == "mine"
    assert people.get(people.insert(Person(name="zoe"))).name == "zoe"
    by_uuid = db.table("keyed_by_uuid")
    key = by_uuid.insert({"n": 1})
    assert isinstance(key, uuid.UUID)
    assert by_uuid.get(key) == by_uuid.get(str(key)) == by_uuid.get(key.hex)
    assert by_uuid.find("no uuid") is None
    with pytest.raises(NotFound):
        by_uuid.delete("no uuid")
    first, second = (db.table("defaults").insert({"needed": "x", "id": None}) for _ in range(2))
    assert second > first
    assert not _needs_id(METADATA.tables["defaults"].c.id)
    assert not _needs_id(METADATA.tables["people"].c.mood)


def test_times_durations_and_models_come_back_as_they_went(db: Tables) -> None:
    paris = AT.in_zone("Europe/Paris")
    address = Address(city="Orléans", since=paris)
    values: dict[str, Any] = {"seen": paris, "born": paris.to_datetime(), "wait": Duration.minutes(90)}
    values |= {"token": uuid.uuid4(), "score": 0.5, "verified": True, "mood": "good", "name": 'ü"\\'}
    people = db.table("people")
    id = people.insert({**values, "data": address, "binary_data": {"a": [address, Color.RED, AT, Duration.hours(1)]}})
    found = people.get(id)
    assert {name: found[name] for name in values} == {**values, "born": AT}
    assert (found.seen.zone, found.born.zone, type(found.wait)) == ("UTC", "UTC", Duration)
    assert Address.model_validate(found.data) == address
    assert found.binary_data == {"a": [address.model_dump(mode="json"), "red", AT.to_iso(), "PT1H"]}
    people.replace(id, found)  # a document that was read can be written again
    assert people.get(id) == found


def test_the_database_may_make_a_value_of_it(db: Tables) -> None:
    """Beside others that are plain, and beside none that is."""
    people = db.table("people")
    loud = people.insert({"name": sa.func.upper("anna"), "age": 3, "nick": None, "data": None})
    assert dict(people.get(loud)) == dict(people.get(people.insert({"name": "ANNA", "age": 3}))) | {"id": loud}
    assert people.get(people.insert({"id": sa.func.lower("MINE")}) or "mine").id == "mine"
    lines = db.table("logs")
    assert lines.insert({}) is None and lines.collect()[0].line is None


def test_values_that_mean_nothing_are_refused(db: Tables) -> None:
    people = db.table("people")
    with pytest.raises(NaiveDateTime):
        people.insert({"seen": dt.datetime(2026, 1, 1)})  # noqa: DTZ001
    with pytest.raises(ValueError, match="JSON"):
        people.insert({"data": {"a": float("nan")}})
    with pytest.raises(InvalidTime):
        db.table("days").insert({"day": AT})
    with pytest.raises(UnknownField, match="'name'"):
        people.insert({"nam": "x"})
    with pytest.raises(UnknownField):
        people.insert({1: "x"})  # type: ignore[dict-item]
    assert people.count() == 0


def test_patch_changes_what_it_names(db: Tables) -> None:
    people = db.table("people")
    id = people.insert({"name": "anna", "age": 1, "data": {"a": 1}})
    people.patch(id, {"age": 2})
    people.patch(id, {"age": 2})  # MySQL counts no row as changed
    people.patch(id, {})
    assert (people.get(id).name, people.get(id).age) == ("anna", 2)
    people.patch(id, Person(name="eva"))  # the fields that were set, not the model's defaults
    assert (people.get(id).name, people.get(id).age, people.get(id).data) == ("eva", 2, {"a": 1})
    people.patch(id, {"age": None})
    assert people.get(id).age is None


def test_replace_goes_back_to_the_defaults(db: Tables) -> None:
    table = db.table("defaults")
    given = {"needed": "a", "optional": "b", "scalar": 1, "called": 1, "number": 1, "text": "c", "json": {"x": 1}}
    id = table.insert({**given, "stamp": AT})
    assert {name: table.get(id)[name] for name in given} == given
    assert table.get(id).twice == 2
    table.replace(id, {"needed": "z"})
    row = table.get(id)
    assert (row.needed, row.optional, row.scalar, row.called, row.number, row.text) == ("z", None, 3, 4, 5, "six")
    assert (row.twice, row.json) == (10, None)
    assert row.stamp > AT
    assert table.filter(lambda q: q.eq(q.field("json"), None)).count() == 1
    fresh = table.get(table.insert({"needed": "z"}))
    assert {**fresh, "id": 0, "stamp": 0} == {**row, "id": 0, "stamp": 0}


def test_missing_rows(db: Tables) -> None:
    people = db.table("people")
    for use in (
        lambda: people.patch("9", {"age": 1}),
        lambda: people.patch("9", {}),
        lambda: people.replace("9", {"age": 1}),
        lambda: people.delete("9"),
    ):
        with pytest.raises(NotFound, match="'9'"):
            use()
    id = people.insert({})
    people.delete(id)
    assert people.find(id) is None


@pytest.mark.parametrize(
    "use",
    [
        lambda table: table.insert({"id": 1, "needed": "again"}),
        lambda table: table.patch(1, {"needed": None}),
        lambda table: table.replace(1, {"optional": "x"}),
    ],
)
def test_what_the_database_refuses_comes_through(db: Tables, use: Any) -> None:
    table = db.table("defaults")
    table.insert({"id": 1, "needed": "x"})
    with pytest.raises(IntegrityError), db.connection.begin_nested():
        use(table)
    assert table.get(1).needed == "x"


def test_the_system_table_is_only_read_and_cancelled_in(db: Tables) -> None:
    jobs = db.table("_scheduled_functions")
    id = db.schedule("internal/a", {})
    for use in (
        lambda: jobs.insert({"name": "x"}),
        lambda: jobs.patch(id, {"name": "x"}),
        lambda: jobs.replace(id, {"name": "x"}),
    ):
        with pytest.raises(SystemTableReadOnly):
            use()
    jobs.delete(id)
    jobs.delete("unknown")
    assert db.canceled == [id, "unknown"]
    assert jobs.get(id).name == "internal/a"
