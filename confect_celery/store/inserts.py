"""New rows on their way into the table: what many of them have in common is made ready for the database once."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, Final, NamedTuple

import sqlalchemy as sa
from sqlalchemy.types import TypeDecorator, TypeEngine

from confect_celery.store.prepared import Prepared
from confect_celery.store.row import NewRow, StateKind
from confect_celery.store.schema import UtcTime, json_type
from confect_celery.timing import DateTime

__all__ = ["ARGS_AT", "Insert", "Lot", "insert_pending", "lots", "values_of", "values_of_pending"]

ARGS_AT: Final = 3
"""Where the arguments stand among the columns. The id comes first."""

_BY_DEFAULT: Final = ("error", "attempt", "losses")
_OF_PENDING: Final = ("completed_time", "deliveries", "state")
"""What is the same of all rows that are pending, and that nobody has published."""


class Lot(NamedTuple):
    """Rows that differ in their ids and arguments alone."""

    shared: dict[str, Any]
    """The value of every other column that has another than its default, by its name; those of JSON columns are texts.
    """
    ids: list[str]
    args: list[str]
    """Of each row the text of its arguments."""


def lots(
    rows: Iterable[NewRow], delivered_until: Mapping[str, DateTime], born: StateKind, block: int | None = None
) -> Iterator[Lot]:
    """The rows, those together that share the very same objects, as those of one call of the scheduler do; of so many
    rows at a time, or of all."""
    left = iter(rows)
    while found := _lots(islice(left, block), delivered_until, born):
        yield from found


def _lots(rows: Iterable[NewRow], delivered_until: Mapping[str, DateTime], born: StateKind) -> list[Lot]:
    found: dict[tuple[Any, ...], Lot] = {}
    for row in rows:
        own, name, kind, args, scheduled, creation, due, options, parent = row
        until = delivered_until.get(own) if delivered_until else None
        key = name, kind, parent, id(scheduled), id(creation), id(due), id(options), id(until)
        lot = found.get(key)
        if lot is None:
            shared = values_of(row, until, born)
            del shared["id"], shared["args"]
            lot = found[key] = Lot(shared, [], [])
        lot.ids.append(own)
        lot.args.append(args.decode() if type(args) is bytes else json.dumps(args))
    return list(found.values())


def values_of_pending(row: NewRow) -> dict[str, Any]:
    """The values of a row that is pending, and that nobody has published; those of JSON columns are texts."""
    own, name, kind, args, scheduled, creation, due, options, parent = row
    return {
        "id": own,
        "name": name,
        "kind": kind,
        "args": args.decode() if type(args) is bytes else json.dumps(args),
        "scheduled_time": scheduled,
        "creation_time": creation,
        "next_at": due,
        "options": json.dumps(options) if options else "{}",
        "parent_id": parent,
    }


def values_of(row: NewRow, until: DateTime | None, born: StateKind) -> dict[str, Any]:
    """Those of any row."""
    pending = born is StateKind.PENDING
    return {
        **values_of_pending(row),
        "completed_time": None if pending else row.creation_time,
        "state": str(born),
        "next_at": until or row.due if pending else None,
        "deliveries": int(until is not None),
    }


def _type(column: sa.Column[Any]) -> TypeEngine[Any]:
    return _Text() if isinstance(column.type, sa.JSON) else _Time() if isinstance(column.type, UtcTime) else column.type


class _Text(TypeDecorator[str]):
    """JSON that is bound as the text it is."""

    impl = sa.JSON
    cache_ok = True

    def load_dialect_impl(self, dialect: sa.Dialect) -> TypeEngine[Any]:
        """The column's own."""
        return json_type().dialect_impl(dialect)

    def bind_processor(self, dialect: sa.Dialect) -> Any:
        """There is nothing to be done."""
        return None


class _Time(UtcTime):
    """Rows of one call were made at the same moment: what became of the last value is known still."""

    cache_ok = True

    def bind_processor(self, dialect: sa.Dialect) -> Any:
        """The column's own, for another value than the last."""
        process: Any = super().bind_processor(dialect)
        if dialect.name == "postgresql":  # where that takes no longer than to look
            return process
        last: tuple[Any, Any] = None, None

        def bound(value: Any) -> Any:
            nonlocal last
            known, made = last
            if value is not known:
                made = process(value)
                last = value, made
            return made

        return bound


def _parameters(columns: Iterable[sa.Column[Any]]) -> dict[str, Any]:
    return {column.name: sa.bindparam(column.name, type_=_type(column)) for column in columns}


def insert_pending(table: sa.Table) -> Prepared:
    """The INSERT of one row that is pending, and that nobody has published: most are so."""
    given = [column for column in table.columns if column.name not in (*_BY_DEFAULT, *_OF_PENDING)]
    return Prepared(sa.insert(table).values({**_parameters(given), "state": sa.literal_column("'pending'")}))


class Insert(Prepared):
    """The INSERT of a row, with a parameter for each column that it does not leave to its default."""

    def __init__(self, table: sa.Table) -> None:
        self.table = table
        self.columns = [column for column in table.columns if column.name not in _BY_DEFAULT]
        super().__init__(sa.insert(table).values(_parameters(self.columns)))

    def many(self, connection: sa.Connection, lots: Iterable[Lot]) -> None:
        """Execute it for all rows of these lots, with the driver's `executemany`."""
        rows: list[Any] = []
        text = ""
        for lot in lots:
            text, bound = self.bound(connection.dialect, {"id": "", "args": "", **lot.shared})
            if isinstance(bound, dict):
                rows += [{**bound, "id": id, "args": args} for id, args in zip(lot.ids, lot.args, strict=True)]
            else:
                before, after = bound[1:ARGS_AT], bound[ARGS_AT + 1 :]
                rows += [(id, *before, args, *after) for id, args in zip(lot.ids, lot.args, strict=True)]
        connection.exec_driver_sql(text, rows)
