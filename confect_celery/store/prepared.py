"""A Core statement whose text is made once, for what is executed for every row."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import sqlalchemy as sa

__all__ = ["Prepared"]


class Prepared:
    """Executes the statement on any connection, with a value for each of its parameters, none of them a list.

    What SQLAlchemy does at each execution, looking for the text and for how each value is bound, is done once a
    dialect. Errors and events are SQLAlchemy's own. Rows hold what the driver gives, of no particular type.
    """

    def __init__(self, statement: sa.ClauseElement) -> None:
        self._statement = statement
        self._form: tuple[sa.Dialect, _Form] | None = None

    def execute(self, connection: sa.Connection, parameters: Mapping[str, Any]) -> sa.CursorResult[Any]:
        """As `connection.execute` does."""
        text, values = self.bound(connection.dialect, parameters)
        return connection.exec_driver_sql(text, values)

    def bound(self, dialect: sa.Dialect, parameters: Mapping[str, Any]) -> tuple[str, Any]:
        """The text for the driver, and the values as it takes them."""
        known = self._form
        if known is None or known[0] is not dialect:
            known = self._form = dialect, _Form(self._statement, dialect)
        return known[1].text, known[1].values(parameters)


class _Form:
    """The statement as one dialect has it."""

    def __init__(self, statement: sa.ClauseElement, dialect: sa.Dialect) -> None:
        compiled: Any = statement.compile(dialect=dialect)
        self.text = str(compiled)
        self._constants = dict(compiled.params)
        self._order: tuple[str, ...] | None = tuple(compiled.positiontup) if compiled.positional else None
        self._process: list[tuple[str, Callable[[Any], Any]]] = [
            (name, process)
            for parameter, name in compiled.bind_names.items()
            if (process := parameter.type.dialect_impl(dialect).bind_processor(dialect)) is not None
        ]

    def values(self, parameters: Mapping[str, Any]) -> Any:
        values = {**self._constants, **parameters}
        for name, process in self._process:
            values[name] = process(values[name])
        return values if self._order is None else tuple(values[name] for name in self._order)
