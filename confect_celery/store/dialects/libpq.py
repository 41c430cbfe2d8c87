"""Statements straight through libpq, several of them in one round trip.

What psycopg's cursors do for a statement, and SQLAlchemy around them, costs several times what PostgreSQL needs to
change a row by its id. So what is executed for every row goes by the protocol itself: prepared once a connection, sent
together, waited for as psycopg waits. Values are adapted and loaded by psycopg; nobody's cursor or event hears of it.
"""

from __future__ import annotations

import functools
import hashlib
import sys
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple, NoReturn, cast

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from confect_celery.store.prepared import Answer, Prepared

if TYPE_CHECKING:
    import psycopg
    from psycopg.adapt import PyFormat

__all__ = [
    "OTHERS_SESSION",
    "Step",
    "exchange",
    "execute",
    "forget",
    "has_own_cursors",
    "is_psycopg",
    "raise_as_sqlalchemy",
    "speaks_libpq",
]

_SESSION: Final = "confect_session"
_SPEAKS: Final = "confect_speaks_libpq"

OTHERS_SESSION: Final = "26000"
"""What the server says of the name of a statement that it does not know: a pooler has given us another's session, or
somebody has dropped all names behind our back."""

_OTHER_COLUMNS: Final = "0A000"
"""What it says, besides, of a statement that was prepared before a table's columns became others."""

_INT8: Final = 20
_SMALLER: Final = (21, 23)


class Step(NamedTuple):
    """A statement, its parameters `$1`, `$2`, …, and their values."""

    text: str
    values: Sequence[Any] = ()
    typed: bool = False
    """Whether the server is told of which types the values are, as psycopg's cursors do, since they may be of others
    than their columns: a UUID for a text."""
    formats: Sequence[int] | None = None
    """Of each value, where it is written as the server takes it; psycopg writes those of other steps."""


_Key = tuple[str, Sequence[int] | None]
"""A step's text and the types of its values, by which it is prepared."""

_Send = tuple[_Key, Sequence[Any], Sequence[Any] | None]
"""A step as it goes to the server: its key, its values and their formats."""


def is_psycopg(raw: Any) -> bool:
    """Whether this is a connection of psycopg 3, not an async one."""
    psycopg = sys.modules.get("psycopg")
    return psycopg is not None and isinstance(raw, psycopg.Connection)


def has_own_cursors(raw: psycopg.Connection[Any]) -> bool:
    """Whether somebody has given it another class of cursors, to hear what they execute."""
    return raw.cursor_factory is not sys.modules["psycopg"].Cursor


@functools.cache
def _sends_together() -> bool:
    from psycopg import Pipeline

    return Pipeline.is_supported()


def speaks_libpq(connection: sa.Connection) -> bool:
    """Whether it is on a psycopg connection whose libpq can send several statements at once."""
    lent = connection.connection
    speaks: bool | None = lent.info.get(_SPEAKS)
    if speaks is None:
        speaks = lent.info[_SPEAKS] = is_psycopg(lent.dbapi_connection) and _sends_together()
    return speaks


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


def execute(connection: sa.Connection, statement: Prepared, parameters: Mapping[str, Any]) -> Answer:
    """Execute it within the transaction that is open, or in one of its own; by SQLAlchemy where libpq is not spoken.

    Its values are written here where they can be, and what is prepared goes the shortest way: it is every caller's.
    """
    lent = connection.connection
    session: _Session | None = lent.info.get(_SESSION)
    if session is None and not speaks_libpq(connection):
        return statement.execute(connection, parameters)
    written = statement.written(connection.dialect, parameters)
    if written is None:
        return exchange(connection, Step(*statement.numbered(connection.dialect, parameters)))[0]
    text, values, formats = written
    send: _Send = (text, None), values, formats
    raw: Any = lent.dbapi_connection
    if session is None or raw.prepare_threshold is None or not session.prepared or send[0] not in session.prepared:
        return exchange(connection, Step(text, values, formats=formats))[0]
    driver = _driver()
    try:
        with raw.lock:
            result = _one(driver, raw, send)
    except BaseException as error:
        _raise_from_wait(connection, text, error)
    if result.status == driver.FATAL_ERROR:
        _refuse(connection, session, result, text)
    return _answer(session.adapter, result)


def exchange(connection: sa.Connection, *steps: Step) -> list[Answer]:
    """Execute these in one round trip, within the transaction that is open, or that they begin, or one of their own.

    After one that fails none is executed. Raises what SQLAlchemy would raise for that one; ValueError where all were
    executed, and a value that one gave cannot be read.
    """
    lent, driver = connection.connection, _driver()
    raw: Any = lent.dbapi_connection
    session = lent.info.get(_SESSION)
    if session is None:
        session = lent.info[_SESSION] = _Session(driver.Transformer(raw), set() if _can_prepare() else None)
    prepared = session.prepared if raw.prepare_threshold is not None else None
    try:
        sends = list(map(functools.partial(_dumped, driver, session.adapter), steps))
    except driver.Error as error:
        raise_as_sqlalchemy(connection, steps[0].text, error)
    try:
        with raw.lock:
            if len(sends) == 1 and prepared is not None and sends[0][0] in prepared:
                result = _one(driver, raw, sends[0])
                results, failed = ([], result) if result.status == driver.FATAL_ERROR else ([result], None)
            else:
                results, failed = raw.wait(_exchange(driver, raw.pgconn, prepared, sends))
    except BaseException as error:
        _raise_from_wait(connection, steps[0].text, error)
    if failed is not None:
        step = steps[len(results)]
        _refuse(connection, session, failed, step.text, step.values if step.typed else None)
    return list(map(functools.partial(_answer, session.adapter), results))


def _raise_from_wait(connection: sa.Connection, text: str, error: BaseException) -> NoReturn:
    if not isinstance(error, _driver().Error):  # a time limit of the task's: the answers are still on their way
        connection.invalidate(error)
        raise error
    raise_as_sqlalchemy(connection, text, error)


def _refuse(
    connection: sa.Connection, session: _Session, failed: Any, text: str, values: Sequence[Any] | None = None
) -> NoReturn:
    """Raise what the server says of a statement that it did not execute."""
    raw: Any = connection.connection.dbapi_connection
    refusal = _driver().error_from_result(failed, raw.info.encoding)
    if refusal.sqlstate == OTHERS_SESSION:  # it may be so each time: this connection prepares nothing any more
        connection.info[_SESSION] = session._replace(prepared=None)
    elif refusal.sqlstate == _OTHER_COLUMNS:
        forget(connection)
    raise_as_sqlalchemy(connection, text, refusal, values)


def raise_as_sqlalchemy(
    connection: sa.Connection, text: str, error: Exception, values: Sequence[Any] | None = None
) -> NoReturn:
    """The driver's own error as SQLAlchemy would have raised it, which tells what is transient; with the values, where
    they are the shop's own."""
    driver = connection.dialect.loaded_dbapi
    if not isinstance(error, driver.Error):
        raise error
    broken = connection.dialect.is_disconnect(cast("Any", error), connection.connection, None)
    if broken:
        connection.invalidate(error)
    raise DBAPIError.instance(
        text,
        None if values is None else tuple(values),
        error,
        driver.Error,
        hide_parameters=connection.engine.hide_parameters,
        connection_invalidated=broken,
        dialect=connection.dialect,
    ) from error


class _Driver(NamedTuple):
    """What of psycopg is used for each exchange; a process that never talks to PostgreSQL need not have it.

    Its generators are compiled, where it is: each of ours costs as much as they all together.
    """

    Error: type[psycopg.Error]
    DataError: type[psycopg.Error]
    OperationalError: type[psycopg.Error]
    error_from_result: Callable[..., psycopg.Error]
    Transformer: Callable[[Any], Any]
    TEXT: PyFormat
    AUTO: PyFormat
    OK: int
    FATAL_ERROR: int
    PIPELINE_ABORTED: int
    PIPELINE_SYNC: int
    execute: Callable[[Any], Generator[Any, Any, list[Any]]]
    send: Callable[[Any], Generator[Any, Any, None]]
    fetch: Callable[[Any], Generator[Any, Any, Any]]


@functools.cache
def _driver() -> _Driver:
    import psycopg
    from psycopg import generators
    from psycopg.adapt import PyFormat, Transformer
    from psycopg.errors import error_from_result
    from psycopg.pq import ConnStatus, ExecStatus

    return _Driver(
        psycopg.Error,
        psycopg.DataError,
        psycopg.OperationalError,
        error_from_result,
        Transformer,
        PyFormat.TEXT,
        PyFormat.AUTO,
        ConnStatus.OK,
        ExecStatus.FATAL_ERROR,
        ExecStatus.PIPELINE_ABORTED,
        ExecStatus.PIPELINE_SYNC,
        generators.execute,
        generators.send,
        generators.fetch,
    )


class _Session(NamedTuple):
    """What is kept with a connection."""

    adapter: Any
    """Psycopg's, which turns values into texts and back."""
    prepared: set[_Key] | None
    """The statements that the server knows by their names; None where it is to be told no names."""


@functools.lru_cache(maxsize=1000)
def _name(key: _Key) -> bytes:
    # Of the text: whoever else has prepared one of this name, behind a pooler, has prepared the same.
    text, types = key
    of = text if types is None else f"{text}{types}"
    return f"confect_{hashlib.blake2b(of.encode(), digest_size=16).hexdigest()}".encode()


def _dumped(driver: _Driver, adapter: Any, step: Step) -> _Send:
    text, values, typed, formats = step
    if formats is not None:
        return (text, None), values, formats
    if not values:
        return (text, None), (), None
    if not typed:
        return (text, None), adapter.dump_sequence(values, [driver.TEXT] * len(values)), None
    # Psycopg has four types of integers, by their size, and each mixture would be prepared.
    wanted = [driver.TEXT if type(value) is int else driver.AUTO for value in values]
    dumped = adapter.dump_sequence(values, wanted)
    given = zip(values, adapter.types, strict=True)
    types = tuple(_INT8 if type(value) is int and oid in _SMALLER else oid for value, oid in given)
    return (text, types), dumped, adapter.formats


_new_answer: Final = functools.partial(tuple.__new__, Answer)
"""Half as long as `Answer(…)`."""


def _answer(adapter: Any, result: Any) -> Answer:
    if not result.nfields:
        return _new_answer((result.command_tuples or 0, []))
    adapter.set_pgresult(result)
    try:
        rows = adapter.load_rows(0, result.ntuples, tuple)
    except _driver().DataError as error:  # a time without end, for example
        raise ValueError(str(error)) from error
    return Answer(len(rows), rows)


def _one(driver: _Driver, raw: psycopg.Connection[Any], send: _Send) -> Any:
    """The result of one that is prepared, without a pipeline, which takes a fifth more of the client's time."""
    key, values, formats = send
    raw.pgconn.send_query_prepared(_name(key), values, formats)
    return raw.wait(driver.execute(raw.pgconn))[-1]


def _exchange(
    driver: _Driver, server: Any, prepared: set[_Key] | None, sends: Sequence[_Send]
) -> Generator[Any, Any, tuple[list[Any], Any]]:
    """The results of those that were executed, and that of the one that failed. Yields what it waits for, as psycopg's
    own generators do."""
    expected: list[Any] = []
    """For each result to come, what it tells to be prepared now, if it does: a key, or nothing that is kept."""
    server.enter_pipeline_mode()
    for send in sends:
        key, values, formats = send
        text, types = key
        if prepared is None or not values:
            server.send_query_params(text.encode(), values, types, formats)
        else:
            name = _name(key)
            if key not in prepared and key not in expected:
                server.send_close_prepared(name)  # which need not be there
                server.send_prepare(name, text.encode(), types)
                expected += [(), key]
            server.send_query_prepared(name, values, formats)
        expected.append(None)
    server.pipeline_sync()
    yield from driver.send(server)
    results: list[Any] = []
    failed, coming = None, iter(expected)
    while True:
        result = yield from driver.fetch(server)
        if result is None:  # between the results of two; but of a connection that is gone there is nothing else
            if server.status != driver.OK:
                raise driver.OperationalError(f"the connection is lost: {server.get_error_message()}")
            continue
        if result.status == driver.PIPELINE_SYNC:
            break
        preparing = next(coming)
        if result.status == driver.FATAL_ERROR:
            failed = result
        elif result.status != driver.PIPELINE_ABORTED:
            if preparing is None:
                results.append(result)
            elif preparing and prepared is not None:
                prepared.add(preparing)
    server.exit_pipeline_mode()
    return results, failed
