"""Statements that are kept do what those do that SQLAlchemy makes anew, and everybody hears of them who listens."""

from __future__ import annotations

import datetime as dt
import logging
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import psycopg
import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError

from confect_celery.store import DatabaseWriter, Store
from confect_celery.timing import DateTime, Duration
from tests.support.databases import DATABASES, Databases

METADATA: Final = sa.MetaData()


class Upper(sa.types.TypeDecorator[str]):
    """The shop's own type: texts in capitals, and it refuses `bad`."""

    impl = sa.String(50)
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: sa.Dialect) -> Any:
        if value == "bad":
            raise LookupError(value)
        return value.upper() if isinstance(value, str) else value

    def process_result_value(self, value: Any, dialect: sa.Dialect) -> Any:
        return f"<{value}>"


TYPES: Final[dict[str, Any]] = {
    "text": sa.String(50),
    "long": sa.Text(),
    "small": sa.SmallInteger(),
    "whole": sa.Integer(),
    "big": sa.BigInteger(),
    "money": sa.Numeric(12, 2),
    "rounded": sa.Numeric(12, 2, asdecimal=False),
    "real": sa.Float(),
    "exact_real": sa.Float(asdecimal=True),
    "truth": sa.Boolean(),
    "moment": sa.DateTime(),
    "zoned": sa.DateTime(timezone=True),
    "day": sa.Date(),
    "hour": sa.Time(),
    "span": sa.Interval(),
    "token": sa.Uuid(),
    "token_text": sa.Uuid(as_uuid=False),
    "data": sa.JSON(),
    "bytes": sa.LargeBinary(),
    "mood": sa.Enum("bad", "good", name="kept_mood"),
    "upper": Upper(),
    "50% off: (a)": sa.String(20),
}
AT: Final = dt.datetime(2026, 3, 8, 12, 0, 0, 123456, dt.UTC)
UUID: Final = uuid.UUID("019aaaaa-0000-7000-8000-00000000cafe")
VALUES: Final[list[Any]] = [
    *(None, "", "ä%s\\'\"", "12", "good", "bad", "2026-03-08", str(UUID), "x" * 60, "a\0b", "\ud800"),
    *(True, False, 0, 5, -1, 40_000, 3_000_000_000, 2**70, 1.5, float("inf"), Decimal("2.345"), Decimal("1e30")),
    *(AT, AT.replace(tzinfo=None), AT.date(), AT.time(), dt.timedelta(hours=30), DateTime.of(AT), Duration.minutes(3)),
    *(UUID, b"\0\xff", {"a": [1, {"b": None}]}, [1, "two"], ("a", 1)),
]
sa.Table(
    "kinds",
    METADATA,
    sa.Column("id", sa.String(36), primary_key=True),
    *(sa.Column(name, type_) for name, type_ in TYPES.items()),
)
sa.Table("numbered", METADATA, sa.Column("id", sa.Integer, primary_key=True), sa.Column("note", sa.String(20)))
sa.Table("by_uuid", METADATA, sa.Column("id", sa.Uuid, primary_key=True), sa.Column("note", sa.String(20)))
sa.Table(
    "defaulting",
    METADATA,
    sa.Column("id", sa.Uuid, primary_key=True, default=uuid.uuid4),
    sa.Column("scalar", sa.Integer, default=3),
    sa.Column("called", sa.Integer, default=lambda: 4),
    sa.Column("builtin", sa.JSON, default=dict),
    sa.Column("server", sa.Integer, server_default="5"),
    sa.Column("note", sa.String(20)),
)
sa.Table(
    "of_a_context",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("note", sa.String(20)),
    sa.Column("length", sa.Integer, default=lambda context: len(context.get_current_parameters()["note"])),
    sa.Column("sum", sa.Integer, default=sa.select(sa.literal(1) + 1).scalar_subquery()),
    sa.Column("changes", sa.Integer, default=0, onupdate=lambda: 7),
)


@pytest.fixture(params=DATABASES)
def store(request: pytest.FixtureRequest, databases: Databases, tmp_path: Path) -> Iterator[Store]:
    with databases.url(request.param, tmp_path) as url:
        store = Store(url, schema=METADATA)
        try:
            store.migrate()
            METADATA.create_all(store.database.engine)
            yield store
        finally:
            store.database.dispose()


@contextmanager
def writer(store: Store) -> Iterator[DatabaseWriter]:
    """In a transaction that the server has been told of."""
    with store.database.transaction() as transaction:
        transaction.connection.exec_driver_sql("SELECT 1")
        yield DatabaseWriter(transaction.connection, store.catalog, lambda id: False)


def outcome(db: DatabaseWriter, act: Callable[[], Any]) -> Any:
    """What came of it, or the error's class; what failed is undone."""
    try:
        with db._connection.begin_nested():
            return act()
    except Exception as error:
        return type(error).__name__, type(getattr(error, "orig", None)).__name__


def shown(value: Any) -> Any:
    return [(type(each).__name__, repr(each)) for each in dict(value).values()] if hasattr(value, "keys") else value


@pytest.mark.parametrize("listening", [False, True], ids=["past cursors", "through cursors"])
def test_they_do_what_new_ones_do(store: Store, listening: bool) -> None:
    """Whatever is given for whatever column: the same rows, and the same errors."""
    with writer(store) as db:
        if listening:
            sa.event.listen(db._connection, "before_cursor_execute", lambda *_: None)
        kept = db.table("kinds")
        anew = replace(kept, _kept=None)

        def came_of(table: Any, id: str, column: str, value: Any) -> str:
            inserted = outcome(db, lambda: table.insert({"id": id, column: value}))
            found = outcome(db, lambda: shown(table.find(id)))
            outcome(db, lambda: anew.insert({"id": f"{id}-", "text": "before"}))
            patched = outcome(db, lambda: table.patch(f"{id}-", {column: value}))
            return repr([inserted, found, patched, outcome(db, lambda: shown(anew.get(f"{id}-")))]).replace(id, "…")

        for column in TYPES:
            for number, value in enumerate(VALUES):
                if column == "bytes" and type(value) is int:
                    continue  # a driver makes so many zero bytes of it
                ours = came_of(kept, f"k {column} {number}"[:30], column, value)
                theirs = came_of(anew, f"n {column} {number}"[:30], column, value)
                assert ours == theirs, f"{value!r} for {column}"
        if store.database.dialect.shares and not listening:
            assert len(set(kept._kept._kept.values()) - {None}) > 20, "they were kept"


IDS: Final[list[Any]] = [
    *("", "k", "K", "k ", "\0", "1", str(UUID), UUID.hex, "no", b"k"),
    *(1, 2**31, 2**63, 2**70, -1, True, 1.0, None, UUID, ("k",), ("k", 1)),
]


@pytest.mark.parametrize("name", ["kinds", "numbered", "by_uuid"])
def test_ids_find_the_same(store: Store, name: str) -> None:
    field = "text" if name == "kinds" else "note"
    with writer(store) as db:
        kept = db.table(name)
        anew = replace(kept, _kept=None)
        anew.insert({"id": {"kinds": "k", "numbered": 1, "by_uuid": UUID}[name]})
        found = 0
        for number, id in enumerate(IDS):
            results = []
            for table in (kept, anew):
                patched = outcome(db, lambda: table.patch(id, {field: f"patch {number}"}))  # noqa: B023
                results.append((patched, outcome(db, lambda: shown(table.find(id)))))  # noqa: B023
            assert results[0] == results[1], id
            found += patched is None
        assert found == {"kinds": 2, "numbered": 2, "by_uuid": 3}[name]


def test_defaults_are_as_ever(store: Store) -> None:
    with writer(store) as db:
        kept = db.table("defaulting")
        for table in (kept, replace(kept, _kept=None)):
            ids = [table.insert({"note": "a"}), table.insert({"note": "b", "scalar": 9, "id": uuid.uuid4()})]
            first, second = map(kept.get, ids)
            assert (first.scalar, first.called, first.builtin, first.server, first.note) == (3, 4, {}, 5, "a")
            assert (second.scalar, second.called, second.builtin, second.server, second.note) == (9, 4, {}, 5, "b")
            assert isinstance(ids[0], uuid.UUID) and ids[0] != ids[1]
        asking = db.table("of_a_context")
        asking.insert({"id": 1, "note": "four"})
        asking.patch(1, {"note": "sixsix"})
        assert shown(asking.get(1)) == shown({"id": 1, "note": "sixsix", "length": 4, "sum": 2, "changes": 7})


def test_a_default_is_made_once(store: Store) -> None:
    """Also where all is left to SQLAlchemy, since another column has a default that only it can make."""
    made: list[int] = []

    def count() -> int:
        made.append(1)
        return len(made)

    metadata = sa.MetaData()
    for name, more in {"plain": 5, "left": sa.select(sa.literal(5)).scalar_subquery()}.items():
        counted, other = sa.Column("counted", sa.Integer, default=count), sa.Column("other", sa.Integer, default=more)
        sa.Table(name, metadata, sa.Column("id", sa.Integer, primary_key=True, autoincrement=False), counted, other)
    own = Store(store.database.url.render_as_string(hide_password=False), schema=metadata)
    metadata.create_all(own.database.engine)
    with writer(own) as db:
        for number, name in enumerate(["plain", "left"] * 2, 1):
            db.table(name).insert({"id": number})
            row = db.table(name).get(number)
            assert (len(made), row.counted, row.other) == (number, number, 5)
        db.table("plain").insert({"id": 9, "other": sa.literal(2) + 3})
        assert (len(made), db.table("plain").get(9).counted, db.table("plain").get(9).other) == (5, 5, 5)
    own.database.dispose()


@pytest.fixture
def cursors(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What psycopg's cursors executed."""
    executed, execute = [], psycopg.Cursor.execute

    def heard(self: Any, query: Any, *args: Any, **kwargs: Any) -> Any:
        executed.append(str(query))
        return execute(self, query, *args, **kwargs)

    monkeypatch.setattr(psycopg.Cursor, "execute", heard)
    return executed


def use(db: DatabaseWriter) -> None:
    kinds = db.table("kinds")
    id = kinds.insert({"text": "a", "money": Decimal("1.50"), "real": 0.5, "data": {"b": [1]}})
    kinds.patch(id, {"text": "b", "zoned": AT})
    found = kinds.get(id)
    assert (found.text, found.money, found.real, found.data) == ("b", Decimal("1.50"), 0.5, {"b": [1]})
    assert found.zoned == DateTime.of(AT)


POSTGRESQL = pytest.mark.parametrize("store", ["postgresql"], indirect=True)


@POSTGRESQL
def test_they_go_past_cursors_where_nobody_listens(store: Store, cursors: list[str]) -> None:
    with writer(store) as db:
        cursors.clear()
        use(db)
        assert cursors == []


@POSTGRESQL
@pytest.mark.parametrize("who", ["connection", "engine", "every engine", "after", "log", "cursors"])
def test_who_listens_hears_of_each(
    store: Store, cursors: list[str], who: str, caplog: pytest.LogCaptureFixture
) -> None:
    heard: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        heard.append(statement)

    if who == "log":
        caplog.set_level(logging.INFO, "sqlalchemy.engine")
        store.database.dispose()  # a connection logs or not from its beginning
    with writer(store) as db:
        engine = store.database.engine
        target: Any = {"connection": db._connection, "every engine": sa.Engine}.get(who, engine)
        event = "after_cursor_execute" if who == "after" else "before_cursor_execute"
        if who == "cursors":
            raw: Any = db._connection.connection.driver_connection
            raw.cursor_factory = type("Heard", (psycopg.Cursor,), {})
        elif who != "log":
            sa.event.listen(target, event, note)
        try:
            cursors.clear()
            use(db)
        finally:
            if who in ("engine", "every engine", "after"):
                sa.event.remove(target, event, note)
        logged = [record.getMessage() for record in caplog.records]
        said = {"log": logged, "cursors": cursors}.get(who, heard)
        for verb in ("INSERT INTO kinds", "UPDATE kinds", "SELECT kinds"):
            assert sum(statement.startswith(verb) for statement in said) == 1, said
        assert len(cursors) == 3


@POSTGRESQL
def test_a_table_whose_columns_change_costs_one_error(store: Store) -> None:
    """PostgreSQL refuses what was prepared for the columns as they were; a connection that is kept gets over it."""
    with writer(store) as db:
        kept = db.table("numbered")
        kept.insert({"id": 1, "note": "7"})
        assert kept.get(1).note == "7"
        raw: Any = db._connection.connection.driver_connection
        raw.execute("ALTER TABLE numbered ALTER note TYPE text")  # as another session would: nobody here hears of it
        with pytest.raises(DBAPIError), db._connection.begin_nested():
            kept.get(1)
        assert kept.get(1).note == "7"


@POSTGRESQL
def test_an_error_tells_of_the_statement_and_its_values(store: Store) -> None:
    with writer(store) as db:
        numbered = db.table("numbered")
        numbered.insert({"id": 7, "note": "first"})
        with pytest.raises(IntegrityError, match="second") as raised, db._connection.begin_nested():
            numbered.insert({"id": 7, "note": "second"})
        assert raised.value.statement is not None and raised.value.statement.startswith("INSERT INTO numbered")
        assert raised.value.params == (7, "second")


@POSTGRESQL
def test_what_cannot_be_read_is_sqlalchemys_error(store: Store) -> None:
    with writer(store) as db:
        id = db.table("kinds").insert({"text": "a"})
        db._connection.exec_driver_sql("UPDATE kinds SET zoned = 'infinity'")
        with pytest.raises(DataError):
            db.table("kinds").get(id)


@POSTGRESQL
def test_numbers_of_other_kinds(store: Store) -> None:
    class Own(int):
        """Psycopg gives it the type that its size asks for, in a binary form."""

    with writer(store) as db:
        kinds = db.table("kinds")
        for number in (Own(5), Own(70_000), 5, 70_000, 3_000_000_000):
            id = kinds.insert({"big": number, "money": number, "text": number})
            found = kinds.get(id)
            assert (found.big, found.money, found.text) == (number, number, str(int(number)))
        prepared = db._connection.exec_driver_sql("SELECT count(*) FROM pg_prepared_statements").scalar_one()
        assert prepared == 4, "an INSERT for each of Own's two types and one for integers, of whatever size; SELECT"


@POSTGRESQL
def test_where_the_shop_wants_nothing_prepared_nothing_is(store: Store) -> None:
    with writer(store) as db:
        raw: Any = db._connection.connection.driver_connection
        raw.prepare_threshold = None
        use(db)
        found = db._connection.exec_driver_sql("SELECT count(*) FROM pg_prepared_statements").scalar_one()
    assert found == 0


@POSTGRESQL
def test_of_a_table_only_so_many_are_kept(store: Store) -> None:
    with writer(store) as db:
        numbered = {name: n for n, name in enumerate(TYPES) if n < 6 or name == "text"}
        kinds, id = db.table("kinds"), db.table("kinds").insert({"text": "a"})
        sets = [[name for at, name in enumerate(numbered) if bits >> at & 1] for bits in range(1, 64)]
        for names in sets:
            kinds.patch(id, {name: "5" if name in ("text", "long") else 5 for name in names})
        found = db._connection.exec_driver_sql(
            "SELECT count(*) FROM pg_prepared_statements WHERE name LIKE 'confect%%'"
        ).scalar_one()
    assert 0 < found <= 33


@POSTGRESQL
def test_a_mapped_class_may_be_given_more_columns(store: Store) -> None:
    metadata = sa.MetaData()
    table = sa.Table("growing", metadata, sa.Column("id", sa.Integer, primary_key=True))
    other = Store(store.database.url.render_as_string(hide_password=False), schema=metadata)
    with writer(other) as db:
        metadata.create_all(db._connection)
        db.table("growing").insert({"id": 1})
        assert dict(db.table("growing").get(1)) == {"id": 1}
        table.append_column(sa.Column("more", sa.Integer, default=2))
        db._connection.exec_driver_sql("ALTER TABLE growing ADD more integer")
        db.table("growing").insert({"id": 2})
        assert dict(db.table("growing").get(1)) == {"id": 1, "more": None}
        assert dict(db.table("growing").get(2)) == {"id": 2, "more": 2}
    other.database.dispose()


@POSTGRESQL
def test_arrays_and_ranges(store: Store) -> None:
    metadata = sa.MetaData()
    sa.Table(
        "pg_own",
        metadata,
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("numbers", postgresql.ARRAY(sa.Integer)),
        sa.Column("words", postgresql.ARRAY(sa.String)),
        sa.Column("document", postgresql.JSONB),
        sa.Column("during", postgresql.TSTZRANGE),
        sa.Column("address", postgresql.INET),
        sa.Column("mood", postgresql.ENUM("good", "bad", name="pg_mood")),
    )
    values = {
        "numbers": [1, None, 70_000],
        "words": ["a", 'b"'],
        "document": {"a": [None, 1.5]},
        "during": postgresql.Range(AT, None, bounds="[)"),
        "address": "10.0.0.1",
        "mood": "bad",
    }
    other = Store(store.database.url.render_as_string(hide_password=False), schema=metadata)
    with writer(other) as db:
        metadata.create_all(db._connection)
        kept = db.table("pg_own")
        anew = replace(kept, _kept=None)
        for number, (write, read) in enumerate([(kept, anew), (anew, kept), (kept, kept), (anew, anew)]):
            write.insert({"id": number})
            write.patch(number, values)
            assert {**shown_fields(read.get(number)), "id": 0} == {**shown_fields(anew.get(0)), "id": 0}
    other.database.dispose()


def shown_fields(row: Any) -> dict[str, Any]:
    return {name: repr(value) for name, value in dict(row).items()}
