"""Statements straight through libpq, several of them in one round trip.

What psycopg's cursors do for a statement, and SQLAlchemy around them, costs several times what PostgreSQL needs to
change a row by its id. So what is executed for every row goes by the protocol itself: prepared once a connection, sent
together, waited for as psycopg waits. Values are adapted and loaded by psycopg; nobody's cursor or event hears of it.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Generator, Sequence
from typing import Any, Final, NamedTuple, NoReturn, cast

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from confect_celery.store.prepared import Answer

__all__ = ["OTHERS_SESSION", "Step", "exchange", "is_psycopg", "raise_as_sqlalchemy", "speaks_libpq"]

_SESSION: Final = "confect_session"

_UNKNOWN_NAME: Final = "26000"
_KNOWN_NAME: Final = "42P05"
OTHERS_SESSION: Final = (_UNKNOWN_NAME, _KNOWN_NAME)
"""What the server says of the name of a statement where a pooler has given us another's session: the next time we know
better."""


class Step(NamedTuple):
    """A statement, its parameters `$1`, `$2`, …, and their values."""

    text: str
    values: Sequence[Any] = ()


@functools.cache
def _is_connection(kind: Any) -> bool:
    return any(f"{each.__module__}.{each.__name__}" == "psycopg.Connection" for each in kind.__mro__)


def is_psycopg(raw: Any) -> bool:
    """Whether this is a connection of psycopg 3, not an async one."""
    return _is_connection(type(raw))


@functools.cache
def _sends_together() -> bool:
    from psycopg import Pipeline

    return Pipeline.is_supported()


def speaks_libpq(raw: Any) -> bool:
    """Whether this is a psycopg connection whose libpq can send several statements at once."""
    return is_psycopg(raw) and _sends_together()


def exchange(connection: sa.Connection, *steps: Step) -> list[Answer]:
    """Execute these in one round trip, within the transaction that is open, or that they begin, or one of their own.

    After one that fails none is executed. Raises what SQLAlchemy would raise for that one.
    """
    import psycopg
    from psycopg.adapt import Transformer

    raw: psycopg.Connection[Any] = cast("Any", connection.connection.driver_connection)
    session = connection.info.get(_SESSION)
    if session is None:
        session = connection.info[_SESSION] = _Session(Transformer(raw), set())
    try:
        with raw.lock:
            sends = [(text, _dumped(session.adapter, values)) for text, values in steps]
            prepares = raw.prepare_threshold is not None
            results, failed = raw.wait(_exchange(raw.pgconn, session.prepared if prepares else None, sends))
    except psycopg.Error as error:
        raise_as_sqlalchemy(connection, steps[0].text, error)
    except BaseException as error:  # a time limit of the task's: the answers are still on their way
        connection.invalidate(error)
        raise
    if failed is not None:
        refusal = psycopg.errors.error_from_result(failed, raw.info.encoding)
        if refusal.sqlstate == _UNKNOWN_NAME:
            session.prepared.clear()
        raise_as_sqlalchemy(connection, steps[len(results)].text, refusal)
    return [_answer(session.adapter, result) for result in results]


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
    prepared: set[str]
    """The statements that the server knows by their names."""


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


def _says_known(result: Any) -> bool:
    from psycopg.pq import DiagnosticField

    return bool(result.error_field(DiagnosticField.SQLSTATE) == _KNOWN_NAME.encode())


def _exchange(
    server: Any, prepared: set[str] | None, sends: Sequence[tuple[str, Any]]
) -> Generator[Any, Any, tuple[list[Any], Any]]:
    """The results of those that were executed, and that of the one that failed. Yields what it waits for, as psycopg's
    own generators do."""
    from psycopg.pq import ExecStatus
    from psycopg.waiting import Ready, Wait

    expected: list[str | None] = []
    """For each result to come, the text that it tells to be prepared now, if it does."""
    server.enter_pipeline_mode()
    for text, values in sends:
        if prepared is None:
            server.send_query_params(text.encode(), values)
        else:
            name = _name(text)
            if text not in prepared and text not in expected:
                server.send_prepare(name, text.encode())
                expected.append(text)
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
        if result is None:
            continue  # between the results of two
        if result.status == ExecStatus.PIPELINE_SYNC:
            break
        preparing = next(coming)
        fine = result.status not in (ExecStatus.FATAL_ERROR, ExecStatus.PIPELINE_ABORTED)
        if result.status == ExecStatus.FATAL_ERROR:
            failed = result
        elif fine and preparing is None:
            results.append(result)
        if prepared is not None and preparing is not None and (fine or _says_known(result)):
            prepared.add(preparing)
    server.exit_pipeline_mode()
    return results, failed
