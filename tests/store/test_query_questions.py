"""Reading: one statement a question, documents as rows were when they were read."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa

from confect_celery.errors import InvalidFilter, UnknownField
from confect_celery.store.query import Catalog, DatabaseReader, Document, Query, SystemTable, TableReader
from confect_celery.timing import DateTime
from tests.store.query_tables import METADATA, Tables, ids

QUESTIONS: dict[str, Callable[[Any], Any]] = {
    "get": lambda table: table.get("1"),
    "find": lambda table: table.find("none"),
    "first": lambda table: table.first(),
    "unique": lambda table: table.filter(lambda q: q.eq(q.field("id"), "1")).unique(),
    "take": lambda table: table.take(2),
    "collect": lambda table: table.collect(),
    "iterate": list,
    "count": lambda table: table.count(),
    "paginate": lambda table: table.order("desc", by="age").paginate(2),
    "json": lambda table: (
        table.filter(lambda q: q.in_(q.field("data.v"), [1, "a", None])).order("asc", by="data.v").collect()
    ),
}


@pytest.mark.parametrize("question", QUESTIONS)
def test_each_question_is_one_statement(db: Tables, question: str) -> None:
    db.people(*({"age": n} for n in range(5)))
    table = db.table("people")
    before = len(db.statements)
    QUESTIONS[question](table)
    assert len(db.statements) == before + 1


def test_order(db: Tables) -> None:
    db.people({"age": 2}, {"age": None}, {"age": 1}, {"age": 2})
    people = db.table("people")
    assert ids(people.collect()) == ids(people.order("asc").collect()) == ["0", "1", "2", "3"]
    assert ids(people.order("desc").collect()) == ids(people.order("desc", by="creation").collect()) == list("3210")
    assert ids(people.order("asc", by="age").collect()) == ["2", "0", "3", "1"]
    assert ids(people.order("desc", by="age").collect()) == ["3", "0", "2", "1"]  # what has no value comes last
    with pytest.raises(InvalidFilter):
        people.order("up")  # type: ignore[arg-type]
    with pytest.raises(InvalidFilter):
        people.order("asc", by="data")
    with pytest.raises(UnknownField):
        people.order("asc", by="agee")


def test_a_query_does_not_change_when_it_is_built_upon(db: Tables) -> None:
    db.people({"age": 1}, {"age": 2})
    people = db.table("people")
    young = people.filter(lambda q: q.lt(q.field("age"), 2))
    young.order("desc").filter(lambda q: q.or_())
    assert (people.count(), young.count()) == (2, 1)
    assert type(young) is Query  # it can be read, but not written to


def test_a_loop_may_write_to_the_table_it_reads(db: Tables) -> None:
    numbers = db.table("reflected")
    for n in range(1200):
        numbers.insert({"id": n, "label": "old"})
    seen = 0
    for row in numbers:
        seen += 1
        numbers.patch(row.id, {"label": "new"})
        numbers.insert({"id": 5000 + row.id, "label": "added"})
    assert seen == 1200
    assert numbers.filter(lambda q: q.eq(q.field("label"), "new")).count() == 1200


def test_a_loop_may_end_early(db: Tables) -> None:
    db.people(*({} for _ in range(700)))
    for person in db.table("people"):
        assert person.id == "0"
        break
    for _ in zip(range(2), db.table("people"), strict=False):
        assert db.table("people").count() == 700


def test_a_table_without_a_key(db: Tables) -> None:
    logs = db.table("logs")
    assert logs.insert({"line": "a"}) is None
    assert [row.line for row in logs.order("desc", by="line").collect()] == ["a"]
    for use in (
        lambda: logs.get("a"),
        lambda: logs.patch("a", {}),
        lambda: logs.replace("a", {}),
        lambda: logs.delete("a"),
        lambda: logs.paginate(1),
    ):
        with pytest.raises(InvalidFilter, match="primary key"):
            use()


def test_documents_are_read_only_mappings(db: Tables) -> None:
    db.people({"name": "a", "data": {"x": {"y": [1]}}})
    person = db.table("people").get("0")
    assert person.name == person["name"] == dict(person)["name"] == "a"
    assert person.data == {"x": {"y": [1]}}
    assert type(person.data) is dict
    assert list(person) == list(person.keys())
    assert set(person) == set(METADATA.tables["people"].columns.keys())
    assert person == db.table("people").get("0") == dict(person)
    assert person != {"name": "a"}
    assert "name='a'" in repr(person) or "'name': 'a'" in repr(person)
    assert pickle.loads(pickle.dumps(person)) == copy.deepcopy(person) == person
    assert "name" in dir(person)
    with pytest.raises(AttributeError, match="'name'"):
        _ = person.nmae
    with pytest.raises(KeyError):
        person["nmae"]
    for change in (lambda: setattr(person, "name", "b"), lambda: delattr(person, "name")):
        with pytest.raises(AttributeError):
            change()
    db.table("people").patch("0", {"name": "b"})
    assert person.name == "a"


def test_fields_that_are_called_like_methods_are_there_by_name() -> None:
    document = Document("t", {"keys": 1, "_fields": 2, "_table": 3, "items": 4})
    assert [document[name] for name in document] == [1, 2, 3, 4]


def test_tables_that_only_the_database_knows(db: Tables) -> None:
    reflected = db.table("reflected")
    at = DateTime.parse("2026-01-01T00:00:00Z")
    reflected.insert({"id": 5, "label": "x", "at": at})
    assert dict(db.table("reflected").get(5)) == {"id": 5, "label": "x", "at": at}
    before = len(db.statements)
    db.table("reflected").count()
    assert len(db.statements) == before + 1  # it is described once


def test_without_metadata_every_table_is_as_the_database_describes_it(db: Tables) -> None:
    db.people({"name": "a", "age": 1, "seen": DateTime.parse("2026-01-01T00:00:00Z")})
    reader = DatabaseReader(db.connection, Catalog(None, SystemTable(db.store.table)))
    assert isinstance(reader.table("people"), TableReader)
    assert reader.table("people").filter(lambda q: q.eq(q.field("age"), 1)).unique() is not None
    assert reader.table("people").get("0").seen == DateTime.parse("2026-01-01T00:00:00Z")
    assert not hasattr(reader.table("people"), "insert")


def test_tables_in_a_schema_are_named_with_it() -> None:
    engine = sa.create_engine("sqlite://")
    metadata = sa.MetaData()
    sa.Table("things", metadata, sa.Column("id", sa.Integer, primary_key=True), schema="other")
    with engine.connect() as connection:
        connection.exec_driver_sql("ATTACH ':memory:' AS other")
        connection.exec_driver_sql("CREATE TABLE other.things (id INTEGER PRIMARY KEY)")
        connection.exec_driver_sql("CREATE TABLE other.more (id INTEGER PRIMARY KEY)")
        system = SystemTable(sa.Table("_scheduled_functions", sa.MetaData(), sa.Column("id", sa.String)))
        reader = DatabaseReader(connection, Catalog(metadata, system))
        assert reader.table("other.things").count() == reader.table("other.more").count() == 0
    engine.dispose()
