"""Rows: documents, and scheduled functions."""

# ruff: noqa: B018
from __future__ import annotations

from typing import Any, assert_type

from confect_celery import (
    DatabaseReader,
    DatabaseWriter,
    DateTime,
    Document,
    ErrorInfo,
    Page,
    ScheduledFunction,
    ScheduledFunctionId,
    StateKind,
)
from tests.typing.cases.shop import confect


def reading(db: DatabaseReader, name: str) -> None:
    assert_type(db.table("users").get("1"), Document)
    assert_type(db.table("users").get("1").email, Any)
    assert_type(db.table(name).find("1"), Document | None)
    assert_type(db.table("users").filter(lambda q: q.eq(q.field("name"), name)).collect(), list[Document])
    assert_type(db.table("users").order("desc", by="name").paginate(10), Page[Document])
    assert_type(db.table("users").count(), int)
    db.table("users").insert({})  # E
    db.table("users").order("up")  # E
    db.table("users").filter(lambda q: q.field("name") == name)  # E
    db.table(3)  # E

    scheduled = db.table("_scheduled_functions")
    assert_type(scheduled.get("1"), ScheduledFunction)
    assert_type(scheduled.first(), ScheduledFunction | None)
    assert_type(scheduled.unique(), ScheduledFunction | None)
    assert_type(scheduled.filter(lambda q: q.eq(q.field("state.kind"), "pending")).take(3), list[ScheduledFunction])
    assert_type(scheduled.paginate(10).items, list[ScheduledFunction])
    for row in scheduled:
        assert_type(row.id, ScheduledFunctionId)
        assert_type(row.scheduled_time, DateTime)
        assert_type(row.completed_time, DateTime | None)
        assert_type(row.state.kind, StateKind)
        assert_type(row.state.error, ErrorInfo | None)
        row.due  # E
        row.name = "other"  # E


def writing(db: DatabaseWriter) -> None:
    assert_type(db.table("users").get("1"), Document)
    assert_type(db.table("_scheduled_functions").get("1"), ScheduledFunction)
    assert_type([row.id for row in db.table("_scheduled_functions")], list[ScheduledFunctionId])
    db.table("users").patch(db.table("users").insert({"name": "A"}), {"name": "B"})
    db.table("_scheduled_functions").delete("1")


with confect.reader() as reader:
    assert_type(reader, DatabaseReader)
with confect.writer() as writer:
    assert_type(writer, DatabaseWriter)
