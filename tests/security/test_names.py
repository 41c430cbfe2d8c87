"""Names that reach a query are checked names: whatever is written in their place becomes no SQL."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import sqlalchemy as sa
from celery import Celery
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from confect_celery import Confect, ConfectError, Duration


class Number(BaseModel):
    a: int


ODD = st.one_of(
    st.text(max_size=60),
    st.sampled_from(["state.kind", "args.a", "id", "name", "scheduled_time", "options"]).flatmap(
        lambda name: st.text(max_size=20).map(lambda rest: name + rest)
    ),
    st.lists(st.text(max_size=10), max_size=6).map(".".join),
)
SPITEFUL = (
    "state.kind'; DROP TABLE _scheduled_functions; --", "id) OR (1=1", 'id" OR "1"="1', "args.a') = 1 --",
    "args.x\x00", "name`; --", "args." + "a." * 200, "args.$[*]", "args.\ud800", "%(id)s", ":id", "args.:x",
)  # fmt: skip


@pytest.fixture(scope="module")
def confect(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Confect]:
    """A shop with two rows."""
    app = Celery("names", broker="memory://", set_as_current=False)
    path: Path = tmp_path_factory.mktemp("names") / "shop.db"
    app.conf.update(confect_database_url=f"sqlite:///{path}")
    it = Confect(app)

    @it.group("t").internal_mutation
    def act(args: Number) -> None: ...

    for n in range(2):
        it.scheduler.run_after(Duration.days(1), act, Number(a=n))
    yield it
    it.store.database.dispose()


def count(confect: Confect) -> int:
    """The rows, counted beside the query language."""
    with confect.store.database.snapshot() as connection:
        return int(connection.execute(sa.select(sa.func.count()).select_from(confect.store.table)).scalar_one())


def spiteful(test: object) -> object:
    """Add what an attacker would try first."""
    for name in SPITEFUL:
        test = example(name)(test)  # type: ignore[arg-type]
    return test


@spiteful
@given(ODD)
@settings(max_examples=150, deadline=None)
def test_a_field_in_a_filter(confect: Confect, name: str) -> None:
    with confect.reader() as db:
        try:
            found = db.table("_scheduled_functions").filter(lambda q: q.eq(q.field(name), "x")).collect()
        except ConfectError:
            found = []
    assert found == [] and count(confect) == 2


@spiteful
@given(ODD)
@settings(max_examples=150, deadline=None)
def test_a_value_in_a_filter(confect: Confect, value: str) -> None:
    with confect.reader() as db:
        table = db.table("_scheduled_functions")
        for field in ("name", "args.a", "state.kind", "id"):
            try:
                found = table.filter(lambda q, field=field: q.eq(q.field(field), value)).collect()
            except ConfectError:
                found = []
            assert found == []
    assert count(confect) == 2


@spiteful
@given(ODD)
@settings(max_examples=150, deadline=None)
def test_a_name_to_order_by(confect: Confect, name: str) -> None:
    with confect.reader() as db:
        try:
            found = db.table("_scheduled_functions").order("desc", by=name).collect()
        except ConfectError:
            return
    assert len(found) == 2 and count(confect) == 2


@spiteful
@given(ODD)
@settings(max_examples=80, deadline=None)
def test_a_table(confect: Confect, name: str) -> None:
    with pytest.raises(ConfectError), confect.reader() as db:
        db.table(name).collect()
    assert count(confect) == 2


@spiteful
@given(ODD)
@settings(max_examples=80, deadline=None)
def test_an_id_and_a_cursor(confect: Confect, text: str) -> None:
    for call in (confect.scheduler.get, confect.scheduler.cancel):
        assert not call(text)  # no database takes half a surrogate pair: it is then no row's id, like any other text
    with confect.reader() as db, suppress(ConfectError):
        assert len(db.table("_scheduled_functions").paginate(1, text).items) <= 1
    assert count(confect) == 2
