"""Documents, and `_scheduled_functions` as a table to read."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest

from confect_celery.errors import InvalidFilter
from confect_celery.store import Document, StateKind
from tests.store.query_tables import Tables, ids


def test_documents() -> None:
    user = Document("users", {"id": 1, "email": "a@b.c", "class": 2, "items": 3})
    assert (user.email, user["class"], user["items"], len(user), "email" in user) == ("a@b.c", 2, 3, 4, True)
    assert dict(user) == {**user} == user
    assert user != Document("people", dict(user))
    for twin in (pickle.loads(pickle.dumps(user)), copy.copy(user), copy.deepcopy(user)):
        assert twin == user
    assert repr(user) == "Document('users', {'id': 1, 'email': 'a@b.c', 'class': 2, 'items': 3})"
    assert "email" in dir(user)
    with pytest.raises(AttributeError, match="did you mean 'email'"):
        _ = user.emial
    with pytest.raises(AttributeError, match="read-only"):
        user.email = "x"
    with pytest.raises(AttributeError, match="read-only"):
        del user._fields
    with pytest.raises(KeyError):
        _ = user["x"]
    with pytest.raises(TypeError):
        hash(user)


def test_scheduled_functions_by_state_error_and_args(db: Tables) -> None:
    one = db.schedule("internal/users/remind", {"user_id": "u1", "tries": 1})
    two = db.schedule("internal/users/remind", {"user_id": "u2"}, StateKind.FAILED)
    three = db.schedule("internal/users/remind", {"user_id": "u1", "metadata": {"source": "web"}}, StateKind.SUCCESS)
    table = db.store.table
    error = {"tag": "Refused", "message": "no", "data": {"code": 7}}
    db.connection.execute(table.update().where(table.c.id == two).values(error=error))
    jobs = db.table("_scheduled_functions")

    def who(field: str, value: Any) -> list[str]:
        return ids(jobs.filter(lambda q: q.eq(q.field(field), value)).collect())

    assert who("state.kind", "pending") == who("state.kind", StateKind.PENDING) == [one]
    assert who("args.user_id", "u1") == [one, three]
    assert who("args.metadata.source", "web") == [three]
    assert who("state.error.tag", "Refused") == who("state.error.data.code", 7) == [two]
    assert who("state.error", None) == [one, three]
    assert ids(jobs.filter(lambda q: q.neq(q.field("state.kind"), "pending")).collect()) == [two, three]
    assert ids(jobs.filter(lambda q: q.in_(q.field("state.kind"), ["pending", "failed"])).collect()) == [one, two]
    failed = jobs.get(two)
    assert failed.state.error is not None
    assert (failed.state.error.tag, failed.state.error.data) == ("Refused", {"code": 7})
    assert ids(jobs.order("desc", by="next_at").collect()) == [one, three, two]
    page = jobs.order("asc", by="args.user_id").paginate(2)
    assert ids(page.items) == [one, three]
    assert ids(jobs.order("asc", by="args.user_id").paginate(2, page.cursor).items) == [two]
    for path in ("state.knid", "state.kind.x", "name.x"):
        with pytest.raises(InvalidFilter):
            jobs.filter(lambda q, path=path: q.eq(q.field(path), 1))
