"""PostgreSQL 13 or newer, through psycopg 3."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, cast

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import DBAPIError

from confect_celery.store.dialects.base import Dialect
from confect_celery.store.dialects.copying import lines
from confect_celery.store.dialects.libpq import (
    OTHERS_SESSION,
    Step,
    exchange,
    execute,
    forget,
    has_own_cursors,
    is_psycopg,
    raise_as_sqlalchemy,
    speaks_libpq,
)
from confect_celery.store.inserts import Insert, Lot
from confect_celery.store.prepared import Answer, Prepared
from confect_celery.timing import DateTime

__all__ = ["PostgresqlDialect"]

_TRANSIENT_STATES: Final = (
    "40001",  # serialization failure
    "40P01",  # deadlock
    "55P03",  # lock not available
    "53300",  # too many connections
    "57P01",  # the server shuts down
    "57P02",
    "57P03",  # the server starts up
    OTHERS_SESSION,
)


_RECOVERED: Final = """
SELECT CAST(extract(epoch FROM greatest(stats_reset, pg_last_xact_replay_timestamp())) * 1000 AS bigint)
FROM pg_stat_bgwriter WHERE stats_reset IS NOT NULL
"""

_FORGETTING: Final = ("ROLLBACK", "DROP", "ALTER", "DEALLOCATE", "DISCARD")
_REFUSING_A_KEPT_PLAN: Final = "RevalidateCachedQuery"
"""The server's function that says so of what was prepared before a column became another: its state is others' too, and
its words are of the server's language."""

_DIVISION_BY_ZERO: Final = "22012"
_BEGIN: Final = Step("BEGIN")
_COMMIT: Final = Step("COMMIT")

_LOCK_MS: Final = 100
_STATEMENT_MS: Final = 250
"""What a mutation may take of the time of others whose transaction it shares."""

_IDLE_MS: Final = 250
"""After so long between two statements the server ends the transaction. A mutation may wait, on a connection of its own
or in a call of a service, for what another has locked in the transaction that it shares: the server cannot see that."""

_TRANSACTION_MS: Final = 500
"""After so long the server ends it in any case, from PostgreSQL 17 on: who cancels one of its rows waits no longer."""


def _autocommits(connection: sa.Connection) -> bool:
    return connection.get_execution_options().get("confect_begin", "") is None


def _on_begin(connection: sa.Connection) -> None:
    # A connection stays as it was used last: who uses it once uses it so again, most likely.
    wanted = _autocommits(connection)
    raw: Any = connection.connection.dbapi_connection
    if raw.autocommit is not wanted and not raw.closed:  # what is closed already is for the statement to find out
        raw.autocommit = wanted


def _on_rollback(connection: sa.Connection, *_: Any) -> None:
    # SQLAlchemy tells it of every connection that is given back; psycopg does nothing where the server is in none.
    if not connection.invalidated and _is_inside(connection):
        forget(connection)


def _on_statement(connection: sa.Connection, _cursor: Any, statement: str, *_: Any) -> None:
    if statement.lstrip()[:10].upper().startswith(_FORGETTING):
        forget(connection)


class PostgresqlDialect(Dialect):
    """Row locks, advisory locks that end with the transaction, and a partial index."""

    default_driver = "psycopg"
    changes_in_ctes = True
    update_returning = True
    shares = True
    holds = True
    spares = True
    listeners = 1
    block = 1000

    def create_engine(self) -> sa.Engine:
        """An engine on psycopg 3."""
        engine = sa.create_engine(self.url)
        event.listen(engine, "begin", _on_begin)
        for what in ("rollback", "rollback_savepoint"):
            event.listen(engine, what, _on_rollback)
        event.listen(engine, "before_cursor_execute", _on_statement)
        return engine

    def autocommit(self, connection: sa.Connection) -> sa.Connection:
        """No BEGIN of the driver's. SQLAlchemy's own way would set it up and back at each use of a connection."""
        return connection if _autocommits(connection) else connection.execution_options(confect_begin=None)

    def begin(self, connection: sa.Connection) -> sa.RootTransaction:
        """As ever, on a connection that may have been in autocommit before."""
        if _autocommits(connection):
            connection.execution_options(confect_begin="")
        return connection.begin()

    def beside_id(self, column: sa.ColumnElement[str]) -> sa.ColumnElement[str]:
        """A text that fits no index: where few rows ran when they were last counted, a plan would go through the index
        of running rows instead, with the entries of many that have ended."""
        return column.concat(sa.literal_column("''"))

    def among(
        self, column: sa.ColumnElement[Any], parameter: str, type_: sa.types.TypeEngine[Any]
    ) -> sa.ColumnElement[bool]:
        """One array: the text is the same however many they are. A bound name each would cost several times as much."""
        return column == sa.any_(sa.bindparam(parameter, type_=postgresql.ARRAY(type_)))

    @property
    def lock(self) -> sa.ColumnElement[bool]:
        """`pg_try_advisory_xact_lock`."""
        return sa.func.pg_try_advisory_xact_lock(sa.bindparam("lock", type_=sa.BigInteger), type_=sa.Boolean)

    def lock_each(
        self, chosen: sa.Select[Any], id: sa.ColumnElement[Any], type_: sa.types.TypeEngine[Any]
    ) -> sa.Select[Any]:
        """`FOR NO KEY UPDATE SKIP LOCKED`."""
        ids, locks = sa.bindparam("rows", type_=postgresql.ARRAY(type_)), postgresql.ARRAY(sa.BigInteger)
        pairs = sa.func.unnest(ids, sa.bindparam("locks", type_=locks))
        wanted = pairs.table_valued("id", "number", name="wanted").render_derived()
        lock = sa.func.pg_try_advisory_xact_lock(wanted.c.number, type_=sa.Boolean)
        return (
            chosen.add_columns(lock).where(id == wanted.c.id).with_for_update(key_share=True, skip_locked=True, of=id)
        )

    @property
    def relaxed(self) -> sa.ColumnElement[object]:
        """`synchronous_commit = off`, for the transaction."""
        return sa.func.set_config("synchronous_commit", "off", sa.true(), type_=sa.String)

    def kept_all_since(self, connection: sa.Connection) -> DateTime | None:
        """Since it last recovered from a crash of its own or of one of its processes, which resets its statistics; on a
        promoted standby, since the last commit that it replayed."""
        millis: int | None = connection.exec_driver_sql(_RECOVERED).scalar()
        return None if millis is None else DateTime.from_epoch_millis(millis)

    def execute(self, connection: sa.Connection, statement: Prepared, parameters: Mapping[str, Any]) -> Answer:
        """Straight through libpq, on a connection of our own, on which each statement is its own transaction."""
        if not _autocommits(connection):
            return statement.execute(connection, parameters)
        return execute(connection, statement, parameters)

    def execute_first(
        self, connection: sa.Connection, statement: Prepared, parameters: Mapping[str, Any], *, bounded: bool = False
    ) -> Answer:
        """BEGIN goes with it. Where it is bounded, a wait for a lock, or a statement, that takes longer is an
        OperationalError, and an idle connection is lost."""
        bounds = _bounds(connection) if bounded else ()
        if not speaks_libpq(connection) or _is_inside(connection) or _has_own_begin(connection):
            for bound in bounds:
                connection.exec_driver_sql(bound.text)
            return statement.execute(connection, parameters)
        return exchange(connection, _BEGIN, *bounds, Step(*statement.numbered(connection.dialect, parameters)))[-1]

    def execute_last(
        self,
        connection: sa.Connection,
        change: Prepared,
        checked: Prepared,
        parameters: Mapping[str, Any],
        *,
        many: int = 1,
    ) -> bool:
        """COMMIT goes with it: it is not executed after a division by zero."""
        if not (speaks_libpq(connection) and _is_inside(connection)):
            return super().execute_last(connection, change, checked, parameters, many=many)
        given = {**parameters, "many": many}
        try:
            exchange(connection, Step(*checked.numbered(connection.dialect, given)), _COMMIT)
        except DBAPIError as error:
            if getattr(error.orig, "sqlstate", None) == _DIVISION_BY_ZERO:
                return False
            raise
        return True

    def is_direct(self, connection: sa.Connection) -> bool:
        """Where the server has been told of a transaction, or there is none."""
        if not speaks_libpq(connection) or has_own_cursors(cast("Any", connection.connection.dbapi_connection)):
            return False
        return _is_inside(connection) or _autocommits(connection)

    def execute_direct(
        self, connection: sa.Connection, savepoint: str | None, statement: Prepared, parameters: Mapping[str, Any]
    ) -> Answer:
        """One round trip for both, and the values are of the types that psycopg's cursors give them."""
        text, values = statement.numbered(connection.dialect, parameters)
        before = () if savepoint is None else (Step(f"SAVEPOINT {savepoint}"),)
        return exchange(connection, *before, Step(text, values, typed=True))[-1]

    def in_savepoint(
        self, connection: sa.Connection, name: str, statement: Prepared, parameters: Mapping[str, Any]
    ) -> Sequence[Any] | None:
        """One round trip for both."""
        if not (speaks_libpq(connection) and _is_inside(connection)):
            return super().in_savepoint(connection, name, statement, parameters)
        step = Step(*statement.numbered(connection.dialect, parameters))
        return exchange(connection, Step(f"SAVEPOINT {name}"), step)[1].row

    def begin_savepoint(self, connection: sa.Connection, name: str) -> None:
        """Straight through libpq."""
        if not (speaks_libpq(connection) and _is_inside(connection)):
            super().begin_savepoint(connection, name)
            return
        exchange(connection, Step(f"SAVEPOINT {name}"))

    def insert_many(self, connection: sa.Connection, insert: Insert, blocks: Iterable[Sequence[Lot]]) -> None:
        """COPY, where the driver is psycopg; an async driver's connection cannot do it here."""
        raw: Any = connection.connection.dbapi_connection
        if not is_psycopg(raw):
            super().insert_many(connection, insert, blocks)
            return
        quoted = connection.dialect.identifier_preparer
        names, into = ", ".join(map(quoted.format_column, insert.columns)), quoted.format_table(insert.table)
        # The driver does it by itself: whoever listens to the connection hears at least of this.
        connection.exec_driver_sql("SELECT 1")
        text = f"COPY {into} ({names}) FROM STDIN"
        try:
            with raw.cursor() as cursor, cursor.copy(text) as copy:
                for lots in blocks:
                    copy.write("".join([lines(insert.columns, lot) for lot in lots]))
        except Exception as error:
            raise_as_sqlalchemy(connection, text, error)

    def adopt(self, raw: Any, engine: sa.Engine) -> sa.Connection | None:
        """A SQLAlchemy face on the open transaction of a psycopg connection, which stays the caller's in every way."""
        if type(raw).__module__.partition(".")[0] != "psycopg" or not hasattr(raw, "cursor"):
            return None
        if raw.autocommit:
            raise TypeError("scheduler.using() joins a transaction, and this psycopg connection is in autocommit mode.")
        with engine.connect():
            pass  # the dialect knows the server then: finding out on the caller's connection would end its transaction
        pool = sa.StaticPool(lambda: raw, reset_on_return=None)
        return sa.Engine(pool, engine.dialect, engine.url).connect()

    @property
    def time(self) -> sa.ColumnElement[object]:
        """The moment of the statement, not the transaction's start."""
        return sa.func.clock_timestamp()

    def connections(self, connection: sa.Connection) -> tuple[int, int] | None:
        """Those of clients, of all databases of the server."""
        used = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' OR backend_type IS NULL"
        most = "SELECT current_setting('max_connections')::int"
        return connection.exec_driver_sql(used).scalar_one(), connection.exec_driver_sql(most).scalar_one()

    def is_transient(self, error: BaseException) -> bool:
        """Serialization failures, deadlocks, what was prepared before a column became another, and a connection or
        server that went away."""
        if self.is_disconnect(error) or self.is_unreachable(error):
            return True
        orig = error.orig if isinstance(error, DBAPIError) else None
        if getattr(orig, "sqlstate", None) in _TRANSIENT_STATES:
            return True
        return getattr(getattr(orig, "diag", None), "source_function", None) == _REFUSING_A_KEPT_PLAN


def _bounds(connection: sa.Connection) -> list[Step]:
    most = {"lock": _LOCK_MS, "statement": _STATEMENT_MS, "idle_in_transaction_session": _IDLE_MS}
    if (connection.dialect.server_version_info or ()) >= (17,):
        most["transaction"] = _TRANSACTION_MS
    return [Step(f"SET LOCAL {name}_timeout = {ms}") for name, ms in most.items()]


def _is_inside(connection: sa.Connection) -> bool:
    """Whether the server has been told of a transaction: psycopg tells it with the first statement."""
    raw: Any = connection.connection.dbapi_connection
    return bool(raw.pgconn.transaction_status)


def _has_own_begin(connection: sa.Connection) -> bool:
    raw: Any = connection.connection.dbapi_connection
    return raw.autocommit or any(each is not None for each in (raw.isolation_level, raw.read_only, raw.deferrable))
