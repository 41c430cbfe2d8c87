"""A value that we write is for PostgreSQL what psycopg's text of it is; what is not plain goes psycopg's way."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from confect_celery import DateTime, Duration
from confect_celery.store import NewRow, StateKind, Store, new_id
from confect_celery.store.prepared import Prepared
from confect_celery.store.wire import REFUSED, writing

NOW = DateTime.parse("2030-01-01T00:00:00.000001Z")
FIRST, LAST = DateTime.parse("0001-01-01T00:00:00Z"), DateTime.parse("9999-12-31T23:59:59.999999Z")
PARIS = DateTime.parse("1999-06-01T12:00:00.5+02:00[Europe/Paris]")
BEFORE_2000 = DateTime.parse("1999-12-31T23:59:59.999999Z")
ON_POSTGRESQL = pytest.mark.parametrize("store", ["postgresql"], indirect=True)


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Of what is executed for one row by itself, whether we write its values."""
    told: list[bool] = []
    write = Prepared.written

    def spied(self: Prepared, dialect: sa.Dialect, parameters: Mapping[str, Any]) -> Any:
        made = write(self, dialect, parameters)
        told.append(made is not None)
        return made

    monkeypatch.setattr(Prepared, "written", spied)
    return told


def row(**given: Any) -> NewRow:
    plain = NewRow(new_id(NOW), "internal/t/f", "action", b'{"n":1}', NOW, NOW, NOW)
    return plain._replace(**given)


def insert(store: Store, row: NewRow, until: DateTime | None = None, *, alone: bool) -> None:
    delivered = {} if until is None else {row.id: until}
    with store.database.statement() if alone else store.database.transaction() as transaction:
        store.rows.insert(transaction.connection, [row], delivered_until=delivered, born=StateKind.PENDING)


def taken(store: Store) -> list[dict[str, Any]]:
    """The rows, as texts of the server's own; and then there are none."""
    with store.database.transaction() as transaction:
        select = sa.select(sa.cast(sa.literal_column("t"), sa.Text)).select_from(store.table.alias("t"))
        rows = [dict(each) for each in transaction.connection.execute(select).mappings()]
        transaction.connection.execute(sa.delete(store.table))
    return rows


@ON_POSTGRESQL
@pytest.mark.parametrize(
    ("given", "until", "ours"),
    [
        ({}, None, True),
        ({"args": b'{"text": "a \\\\ \\u00e9 \\" \\n \\t"}', "options": {"headers": {"é": [1, None]}}}, None, True),
        ({"scheduled_time": FIRST, "due": LAST, "creation_time": BEFORE_2000}, None, True),
        ({"scheduled_time": PARIS, "due": PARIS.to_datetime()}, NOW + Duration.seconds(30), True),
        ({"parent_id": new_id(NOW), "kind": "task", "name": "a'b\"c;%s $1"}, None, True),
        ({"name": "internal/t/Zoë 🦉"}, None, False),
    ],
    ids=["plain", "escapes", "far times", "another zone and a datetime", "a parent", "not ASCII"],
)  # fmt: skip
def test_a_row_is_the_same_however_it_is_written(
    store: Store, written: list[bool], given: dict[str, Any], until: DateTime | None, ours: bool
) -> None:
    one = row(**given)
    insert(store, one, until, alone=True)
    assert written == [ours]
    alone = taken(store)
    insert(store, one, until, alone=False)
    assert len(written) == 1, "the other went through a cursor"
    assert alone == taken(store)
    assert one.id in str(alone)


@ON_POSTGRESQL
def test_in_a_session_of_another_encoding(store: Store, written: list[bool]) -> None:
    with store.database.statement() as transaction:
        transaction.connection.exec_driver_sql("SET client_encoding = 'LATIN1'")
    rows = [row(), row(name="internal/t/Zoë")]
    for each in rows:
        insert(store, each, alone=True)
    assert written == [True, False]
    told = str(taken(store))
    assert all(each.id in told and each.name in told for each in rows)


@ON_POSTGRESQL
def test_a_text_with_a_nul_is_refused_and_not_cut(store: Store) -> None:
    with pytest.raises(DBAPIError):
        insert(store, row(parent_id="a\0b"), alone=True)
    assert taken(store) == []


ALL = "VALUES (%(a)s::VARCHAR, %(b)s::TIMESTAMP WITH TIME ZONE, %(c)s::INTEGER, %(d)s::BIGINT, %(e)s::JSONB)"


def test_what_the_text_says_of_each_value_decides() -> None:
    found = writing(ALL, ["a", "b", "c", "d", "e"], ["b"])
    assert found is not None
    assert list(found.formats) == [1, 1, 1, 1, 0]
    written = [write(value) for (_, write), value in zip(found.writers, ["x", NOW, -2, 3, "{}"], strict=True)]
    assert written == [
        b"x",
        (NOW.epoch_micros - 946_684_800_000_000).to_bytes(8, "big"),
        b"\xff\xff\xff\xfe",
        b"\0\0\0\0\0\0\0\3",
        b"{}",
    ]


@pytest.mark.parametrize(
    ("cast", "value"),
    [
        ("VARCHAR", "é"),
        ("VARCHAR", uuid.UUID(int=7)),
        ("JSONB", {}),
        ("INTEGER", 2**31),
        ("INTEGER", 1.5),
        ("BIGINT", -(2**63) - 1),
        ("BIGINT", "1"),
    ],
)
def test_a_value_that_is_not_plainly_of_its_type_is_refused(cast: str, value: object) -> None:
    found = writing(f"SELECT %(a)s::{cast}", ["a"], [])
    assert found is not None
    with pytest.raises(REFUSED):
        found.writers[0][1](value)


@pytest.mark.parametrize(
    ("text", "processed"),
    [
        ("SELECT %(a)s", []),
        ("SELECT %(a)s::UUID", []),
        ("SELECT %(a)s::VARCHAR[]", []),
        ("SELECT %(a)s::VARCHAR, %(a)s::INTEGER", []),
        ("SELECT %(a)s::VARCHAR, %(a)s", []),
        ("SELECT %(a)s::VARCHAR", ["a"]),
    ],
    ids=["no type", "another type", "an array", "two types", "one without", "processed"],
)
def test_the_driver_writes_all_else(text: str, processed: list[str]) -> None:
    assert writing(text, ["a"], processed) is None
