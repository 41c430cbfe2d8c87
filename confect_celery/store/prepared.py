"""A Core statement whose text is made once, for what is executed for every row."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple, cast

import sqlalchemy as sa
from sqlalchemy.types import TypeEngine

from confect_celery.store.wire import REFUSED, Writing, writing

__all__ = ["Answer", "Prepared"]

_FLOAT8: Final = 701
_NUMERIC: Final = 1700


class Answer(NamedTuple):
    """What came of a statement: how many rows it changed or gave, and those it gave."""

    rowcount: int
    rows: list[tuple[Any, ...]]

    @property
    def row(self) -> tuple[Any, ...] | None:
        """The one row that it gave, if there is one."""
        return self.rows[0] if self.rows else None


class Prepared:
    """Executes the statement on any connection, with a value for each of its parameters.

    What SQLAlchemy does at each execution, looking for the text and for how each value is bound, is done once a
    dialect. Errors and events are SQLAlchemy's own. Rows hold what the driver gives; `typed` makes of it what the
    columns say.
    """

    def __init__(self, statement: sa.ClauseElement) -> None:
        self._statement = statement
        self._form: tuple[sa.Dialect, _Form] | None = None

    def execute(self, connection: sa.Connection, parameters: Mapping[str, Any]) -> Answer:
        """As `connection.execute` does."""
        form = self._formed(connection.dialect)
        if form.has_lists:  # each time there are as many parameters as there are values
            result = connection.execute(cast("sa.Executable", self._statement), parameters)
        else:
            result = connection.exec_driver_sql(form.text, form.values(parameters))
        if not result.returns_rows:
            return Answer(result.rowcount, [])
        rows = [tuple(row) for row in result]
        return Answer(len(rows), rows)

    def text(self, dialect: sa.Dialect) -> str:
        """The text for the driver."""
        return self._formed(dialect).text

    def bound(self, dialect: sa.Dialect, parameters: Mapping[str, Any]) -> tuple[str, Any]:
        """The text for the driver, and the values as it takes them."""
        form = self._formed(dialect)
        return form.text, form.values(parameters)

    def numbered(self, dialect: sa.Dialect, parameters: Mapping[str, Any]) -> tuple[str, list[Any]]:
        """The text with `$1`, `$2`, … for its parameters, and their values; of a dialect that has them named."""
        form = self._formed(dialect)
        text, taken = form.numbered
        given = {**form.constants, **parameters} if form.constants else parameters
        return text, [given[name] if process is None else process(given[name]) for name, process in taken]

    def written(
        self, dialect: sa.Dialect, parameters: Mapping[str, Any]
    ) -> tuple[str, list[bytes | None], Sequence[int]] | None:
        """The same with the values as PostgreSQL's server takes them, and their formats; None where the driver must
        make that of them."""
        form = self._formed(dialect)
        how = form.writing
        if how is None:
            return None
        given = {**form.constants, **parameters} if form.constants else parameters
        try:
            values = [None if (value := given[name]) is None else write(value) for name, write in how.writers]
        except REFUSED:
            return None
        return form.numbered[0], values, how.formats

    def typed(self, dialect: sa.Dialect, row: Sequence[Any]) -> list[Any]:
        """A row that it gave, each value of its column's type."""
        form = self._formed(dialect)
        if form.has_lists:  # SQLAlchemy has executed it, and done that
            return list(row)
        return [value if process is None else process(value) for value, process in zip(row, form.results, strict=True)]

    def _formed(self, dialect: sa.Dialect) -> _Form:
        known = self._form
        if known is None or known[0] is not dialect:
            known = self._form = dialect, _Form(self._statement, dialect)
        return known[1]


class _Form:
    """The statement as one dialect has it."""

    def __init__(self, statement: sa.ClauseElement, dialect: sa.Dialect) -> None:
        compiled: Any = statement.compile(dialect=dialect)
        self.text = str(compiled)
        self.has_lists = any(bound.expanding for bound in compiled.bind_names)
        values, names = compiled.params, compiled.bind_names
        self.constants = {name: values[name] for bound, name in names.items() if not bound.required}
        """The values of those that the statement has itself."""
        self._order: tuple[str, ...] | None = tuple(compiled.positiontup) if compiled.positional else None
        self._process: list[tuple[str, Callable[[Any], Any]]] = [
            (name, process)
            for parameter, name in compiled.bind_names.items()
            if (process := parameter.type.dialect_impl(dialect).bind_processor(dialect)) is not None
        ]

        columns: Any = getattr(statement, "exported_columns", ())
        self.results = [_reader(column.type.dialect_impl(dialect), dialect) for column in columns]

    @functools.cached_property
    def numbered(self) -> tuple[str, list[tuple[str, Callable[[Any], Any] | None]]]:
        """The text with numbered parameters, and in that order their names and what is done to their values."""
        names, processes = _Numbers(), dict(self._process)
        text = self.text % names
        return text, [(name, processes.get(name)) for name in names]

    @functools.cached_property
    def writing(self) -> Writing | None:
        """How the server takes the values of numbered parameters."""
        names = [name for name, _ in self.numbered[1]]
        return writing(self.text, names, [name for name, _ in self._process])

    def values(self, parameters: Mapping[str, Any]) -> Any:
        values = {**self.constants, **parameters}
        for name, process in self._process:
            values[name] = process(values[name])
        return values if self._order is None else tuple(values[name] for name in self._order)


def _reader(type_: TypeEngine[Any], dialect: sa.Dialect) -> Callable[[Any], Any] | None:
    if not (isinstance(type_, (sa.Numeric, sa.Float)) and dialect.name == "postgresql"):
        process: Callable[[Any], Any] | None = type_.result_processor(dialect, None)
        return process
    # The only ones that ask what the server calls it; the driver's value says as much.
    numeric: Any = type_  # untyped there
    of_float, of_other = (numeric.result_processor(dialect, oid) for oid in (_FLOAT8, _NUMERIC))

    def read(value: Any) -> Any:
        process = of_float if type(value) is float else of_other
        return value if value is None or process is None else process(value)

    return read


class _Numbers(dict[str, str]):
    """Gives each name that it is asked for the next number."""

    def __missing__(self, name: str) -> str:
        number = self[name] = f"${len(self) + 1}"
        return number
