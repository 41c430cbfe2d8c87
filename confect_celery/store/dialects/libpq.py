"""Statements straight through libpq, several of them in one round trip.

What psycopg's cursors do for a statement, and SQLAlchemy around them, costs several times what PostgreSQL needs to
change a row by its id. So what is executed for every row goes by the protocol itself: prepared once a connection, sent
together, waited for as psycopg waits. Values are adapted and loaded by psycopg; nobody's cursor or event hears of it.
"""

from __future__ import annotations

import functools
import hashlib
import sys
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, NamedTuple, NoReturn, cast

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from confect_celery.store.prepared import Answer

__all__ = ["OTHERS_SESSION", "Step", "exchange", "forget", "is_psycopg", "raise_as_sqlalchemy", "speaks_libpq"]

_SESSION: Final = "confect_session"

OTHERS_SESSION: Final = "26000"
"""What the server says of the name of a statement that it does not know: a pooler has given us another's session, or
somebody has dropped all names behind our back."""


class Step(NamedTuple):
    """A statement, its parameters `$1`, `$2`, …, and their values."""

    text: str
    values: Sequence[Any] = ()


def is_psycopg(raw: Any) -> bool:
    """Whether this is a connection of psycopg 3, not an async one."""
    psycopg = sys.modules.get("psycopg")
    return psycopg is not None and isinstance(raw, psycopg.Connection)


@functools.cache
def _sends_together() -> bool:
    from psycopg import Pipeline

    return Pipeline.is_supported()


def speaks_libpq(raw: Any) -> bool:
    """Whether this is a psycopg connection whose libpq can send several statements at once."""
    return is_psycopg(raw) and _sends_together()


@functools.cache
def _can_prepare() -> bool:
    """Whether what is prepared can be dropped by its name though it may be gone; from psycopg 3.2 and libpq 17 on."""
    capabilities = getattr(sys.modules["psycopg"], "capabilities", None)
    return capabilities is not None and bool(capabilities.has_send_close_prepared())


def forget(connection: sa.Connection) -> None:
    """Take nothing for prepared any more: psycopg drops all that is after what may have dropped a table."""
    session = connection.info.get(_SESSION)
    if session is not None and session.prepared:
        session.prepared.clear()


def exchange(connection: sa.Connection, *steps: Step) -> list[Answer]:
    """Execute these in one round trip, within the transaction that is open, or that they begin, or one of their own.

    After one that fails none is executed. Raises what SQLAlchemy would raise for that one; ValueError where all were
    executed, and a value that one gave cannot be read.
    """
    import psycopg
    from psycopg.adapt import Transformer

    raw: psycopg.Connection[Any] = cast("Any", connection.connection.driver_connection)
    session = connection.info.get(_SESSION)
    if session is None:
        session = connection.info[_SESSION] = _Session(Transformer(raw), set() if _can_prepare() else None)
    prepared = session.prepared if raw.prepare_threshold is not None else None
    with _translated(connection, steps[0].text):
        sends = [(text, _dumped(session.adapter, values)) for text, values in steps]
        try:
            with raw.lock:
                results, failed = raw.wait(_exchange(raw.pgconn, prepared, sends))
        except BaseException as error:  # a time limit of the task's: the answers are still on their way
            if not isinstance(error, psycopg.Error):
                connection.invalidate(error)
            raise
    if failed is not None:
        refusal = psycopg.errors.error_from_result(failed, raw.info.encoding)
        if refusal.sqlstate == OTHERS_SESSION:  # it may be so each time: this connection prepares nothing any more
            connection.info[_SESSION] = session._replace(prepared=None)
        raise_as_sqlalchemy(connection, steps[len(results)].text, refusal)
    try:
        return [_answer(session.adapter, result) for result in results]
    except psycopg.DataError as error:  # a time without end, for example
        raise ValueError(str(error)) from error


@contextmanager
def _translated(connection: sa.Connection, text: str) -> Iterator[None]:
    import psycopg

    try:
        yield
    except psycopg.Error as error:
        raise_as_sqlalchemy(connection, text, error)


def raise_as_sqlalchemy(connection: sa.Connection, text: str, error: Exception) -> NoReturn:
    """The driver's own error as SQLAlchemy would have raised it, which tells what is transient."""
    driver = connection.dialect.loaded_dbapi
    if not isinstance(error, driver.Error):
        raise error
    broken = connection.dialect.is_disconnect(cast("Any", error), connection.connection, None)
    if broken:
        connection.invalidate(error)
    raise DBAPIError.instance(
        text, None, error, driver.Error, connection_invalidated=broken, dialect=connection.dialect
    ) from error


class _Session(NamedTuple):
    """What is kept with a connection."""

    adapter: Any
    """Psycopg's, which turns values into texts and back."""
    prepared: set[str] | None
    """The statements that the server knows by their names; None where it is to be told no names."""


@functools.cache
def _name(text: str) -> bytes:
    # Of the text: whoever else has prepared one of this name, behind a pooler, has prepared the same.
    return f"confect_{hashlib.blake2b(text.encode(), digest_size=16).hexdigest()}".encode()


def _dumped(adapter: Any, values: Sequence[Any]) -> Any:
    from psycopg.adapt import PyFormat

    return adapter.dump_sequence(values, [PyFormat.TEXT] * len(values)) if values else ()


def _answer(adapter: Any, result: Any) -> Answer:
    if not result.nfields:
        return Answer(result.command_tuples or 0, [])
    adapter.set_pgresult(result)
    rows = adapter.load_rows(0, result.ntuples, tuple)
    return Answer(len(rows), rows)


def _exchange(
    server: Any, prepared: set[str] | None, sends: Sequence[tuple[str, Any]]
) -> Generator[Any, Any, tuple[list[Any], Any]]:
    """The results of those that were executed, and that of the one that failed. Yields what it waits for, as psycopg's
    own generators do."""
    import psycopg
    from psycopg.pq import ConnStatus, ExecStatus
    from psycopg.waiting import Ready, Wait

    expected: list[str | None] = []
    """For each result to come, the text that it tells to be prepared now, if it does."""
    server.enter_pipeline_mode()
    for text, values in sends:
        if prepared is None or not values:
            server.send_query_params(text.encode(), values)
        else:
            name = _name(text)
            if text not in prepared and text not in expected:
                server.send_close_prepared(name)  # which need not be there
                server.send_prepare(name, text.encode())
                expected += ["", text]
            server.send_query_prepared(name, values)
        expected.append(None)
    server.pipeline_sync()
    while server.flush():
        if (yield Wait.RW) & Ready.R:
            server.consume_input()
    results: list[Any] = []
    failed, coming = None, iter(expected)
    while True:
        while server.is_busy():
            yield Wait.R
            server.consume_input()
        result = server.get_result()
        if result is None:  # between the results of two; but of a connection that is gone there is nothing else
            if server.status != ConnStatus.OK:
                raise psycopg.OperationalError(f"the connection is lost: {server.get_error_message()}")
            continue
        if result.status == ExecStatus.PIPELINE_SYNC:
            break
        preparing = next(coming)
        if result.status == ExecStatus.FATAL_ERROR:
            failed = result
        elif result.status != ExecStatus.PIPELINE_ABORTED:
            if preparing is None:
                results.append(result)
            elif prepared is not None:
                prepared.add(preparing)
    server.exit_pipeline_mode()
    return results, failed
