"""The tables that the tests of `store.query` read and write, in one transaction of a database of their own."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import mysql, postgresql

from confect_celery.store import DatabaseWriter, NewRow, StateKind, Store, new_id
from confect_celery.store.query import Condition, Filter
from confect_celery.timing import DateTime
from tests.support.databases import Databases

METADATA = sa.MetaData()

# So that texts sort by code point, as they do elsewhere.
_exact = sa.String(50).with_variant(mysql.VARCHAR(50, collation="utf8mb4_bin"), "mysql", "mariadb")
_precise = sa.DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")
_zoned = sa.DateTime(timezone=True).with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")

sa.Table(
    "people",
    METADATA,
    sa.Column("id", sa.String(36), primary_key=True),
    sa.Column("name", _exact),
    sa.Column("nick", sa.String(50)),
    sa.Column("age", sa.Integer),
    sa.Column("shoe", sa.Integer),
    sa.Column("score", sa.REAL),
    sa.Column("verified", sa.Boolean),
    sa.Column("mood", sa.Enum("bad", "good", name="mood")),
    sa.Column("seen", _precise),
    sa.Column("born", _zoned),
    sa.Column("wait", sa.Interval),
    sa.Column("token", sa.Uuid),
    sa.Column("data", sa.JSON),
    sa.Column("binary_data", sa.JSON().with_variant(postgresql.JSONB(), "postgresql")),
    sa.Column("state", sa.JSON),
)
sa.Table(
    "defaults",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("needed", sa.String(10), nullable=False),
    sa.Column("optional", sa.String(10)),
    sa.Column("scalar", sa.Integer, default=3),
    sa.Column("called", sa.Integer, default=lambda: 4),
    sa.Column("number", sa.Integer, server_default="5"),
    sa.Column("text", sa.String(10), server_default="six"),
    sa.Column("stamp", sa.DateTime, server_default=sa.func.current_timestamp()),
    sa.Column("twice", sa.Integer, sa.Computed("number * 2", persisted=True)),
    sa.Column("json", sa.JSON),
)
sa.Table(
    "members",
    METADATA,
    sa.Column("team", sa.String(20), primary_key=True),
    sa.Column("seat", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("role", sa.String(20)),
)
sa.Table("keyed_by_uuid", METADATA, sa.Column("id", sa.Uuid, primary_key=True), sa.Column("n", sa.Integer))
sa.Table("days", METADATA, sa.Column("id", sa.Integer, primary_key=True), sa.Column("day", sa.Date))
sa.Table("logs", METADATA, sa.Column("line", sa.String(50)))

UNKNOWN_TO_METADATA = "CREATE TABLE reflected (id INTEGER PRIMARY KEY, label VARCHAR(20), at TIMESTAMP NULL)"


class Tables(DatabaseWriter):
    """A DatabaseWriter that notes what was canceled and which statements ran."""

    def __init__(self, store: Store, connection: sa.Connection) -> None:
        self.canceled: list[str] = []
        super().__init__(connection, store.catalog, lambda id: bool(self.canceled.append(id)))
        self.store = store
        self.connection = connection
        self.statements: list[str] = []
        sa.event.listen(connection, "before_cursor_execute", lambda c, cur, sql, *_: self.statements.append(sql))

    def people(self, *rows: dict[str, Any]) -> None:
        """People, called "0", "1" and so on."""
        for number, row in zip(itertools.count(), rows):
            self.table("people").insert({"id": str(number), **row})

    def who(self, build: Callable[[Filter], Condition]) -> list[int]:
        """The numbers of the people for whom the filter holds."""
        return sorted(int(person.id) for person in self.table("people").filter(build).collect())

    def schedule(self, name: str, args: Any, state: StateKind = StateKind.PENDING) -> str:
        """A row of the system table."""
        now = DateTime.now()
        row = NewRow(new_id(now), name, "mutation", args, now, now, now)
        self.store.rows.insert(self.connection, [row], delivered_until={}, born=StateKind.PENDING)
        if state is not StateKind.PENDING:
            table = self.store.table
            ended = {"next_at": None, "completed_time": now} if state.terminal else {}
            self.connection.execute(table.update().where(table.c.id == row.id).values(state=state.value, **ended))
        return row.id


@contextmanager
def _prepared(url: str) -> Iterator[Store]:
    """A store with the tables."""
    store = Store(url, schema=METADATA)
    try:
        store.migrate()
        METADATA.create_all(store.database.engine)
        with store.database.transaction() as transaction:
            transaction.connection.exec_driver_sql(UNKNOWN_TO_METADATA)
        yield store
    finally:
        store.database.dispose()


@contextmanager
def open_tables(databases: Databases, kind: str, directory: Path) -> Iterator[Tables]:
    """The tables, empty, in a database of their own."""
    with (
        databases.url(kind, directory) as url,
        _prepared(url) as store,
        store.database.transaction() as transaction,
    ):
        yield Tables(store, transaction.connection)


class _Undone(Exception):
    pass


@contextmanager
def borrow_tables(databases: Databases, kind: str) -> Iterator[Tables]:
    """The tables, empty, in a database that is prepared once a session: what is written is undone.

    Not for who changes a schema, which MariaDB commits at once.
    """
    store = databases.kept(kind, _prepared)
    with suppress(_Undone), store.database.transaction() as transaction:
        yield Tables(store, transaction.connection)
        raise _Undone


def ids(rows: Iterable[Any]) -> list[Any]:
    """The rows' ids."""
    return [row.id for row in rows]
