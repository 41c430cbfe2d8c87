"""New rows on their way into the table: what many of them have in common is made ready for the database once."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Final, NamedTuple

import sqlalchemy as sa
from sqlalchemy.types import TypeDecorator, TypeEngine

from confect_celery.store.prepared import Prepared
from confect_celery.store.row import NewRow, StateKind
from confect_celery.store.schema import UtcTime, json_type
from confect_celery.timing import DateTime

__all__ = ["VARYING", "Insert", "Lot", "insert_pending", "lots", "values_of", "values_of_pending"]

VARYING: Final = ("id", "args", "scheduled_time", "next_at", "options")
"""The columns in which rows of one lot may differ, in the table's order."""

_BY_DEFAULT: Final = ("error", "attempt", "losses")
_OF_PENDING: Final = ("completed_time", "deliveries", "state")
"""What is the same of all rows that are pending, and that nobody has published."""


class Lot(NamedTuple):
    """Rows that differ in few columns."""

    shared: dict[str, Any]
    """The value of every other column that has another than its default, by its name; those of JSON columns are texts.
    """
    ids: list[str]
    args: list[str]
    """Of each row the text of its arguments."""
    scheduled: list[DateTime]
    next_at: list[DateTime | None]
    options: list[str]
    """Of each row the text of its options."""

    @property
    def varying(self) -> tuple[list[Any], ...]:
        """What the rows have in each of the varying columns."""
        return self.ids, self.args, self.scheduled, self.next_at, self.options

    @property
    def differing(self) -> int:
        """In how many of the varying columns they differ, from the first on: id and arguments; these and times; all."""
        if len(set(self.options)) > 1:
            return len(VARYING)
        return 2 if len(set(map(id, self.scheduled))) == len(set(map(id, self.next_at))) == 1 else 4

    def since(self, start: int) -> Lot:
        """The rows from there on."""
        return Lot(self.shared, *(column[start:] for column in self.varying))

    def rows(self, bind: Callable[[DateTime], Any], null: Any = None) -> Iterator[tuple[str, str, Any, Any, str]]:
        """What of each row is in its varying columns, with times bound so."""
        last: tuple[object, object] = None, None
        at = then = null
        for own, args, scheduled, next_at, options in zip(*self.varying, strict=True):
            if scheduled is not last[0] or next_at is not last[1]:
                last = scheduled, next_at
                at = bind(scheduled)
                then = at if next_at is scheduled else null if next_at is None else bind(next_at)
            yield own, args, at, then, options


def lots(
    rows: Sequence[NewRow], delivered_until: Mapping[str, DateTime], born: StateKind, block: int | None = None
) -> Iterator[list[Lot]]:
    """The rows, those together that share the very same objects, as those of one call of the scheduler do; of so many
    rows at a time, or of all."""
    left = iter(rows)
    while found := _lots(islice(left, block), delivered_until, born):
        yield found


def _lots(rows: Iterable[NewRow], delivered_until: Mapping[str, DateTime], born: StateKind) -> list[Lot]:
    found: dict[tuple[Any, ...], Lot] = {}
    pending = born is StateKind.PENDING
    said: Mapping[str, Any] | None = None
    text = "{}"
    for row in rows:
        own, name, kind, args, scheduled, creation, due, options, parent = row
        until = delivered_until.get(own) if delivered_until else None
        if options is not said:
            said, text = options, _text_of(options)
        key = name, kind, parent, id(creation), until is None
        lot = found.get(key)
        if lot is None:
            shared = values_of(row, until, born)
            for column in VARYING:
                del shared[column]
            lot = found[key] = Lot(shared, [], [], [], [], [])
        lot.ids.append(own)
        lot.args.append(args.decode() if type(args) is bytes else json.dumps(args))
        lot.scheduled.append(scheduled)
        lot.next_at.append((until or due) if pending else None)
        lot.options.append(text)
    return list(found.values())


def _text_of(options: Mapping[str, Any]) -> str:
    return json.dumps(options) if options else "{}"


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
        "options": _text_of(options),
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
    return _Text() if isinstance(column.type, sa.JSON) else column.type


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
        self.varying = [at for at, column in enumerate(self.columns) if column.name in VARYING]
        """Where those columns stand in which rows of one lot differ."""
        super().__init__(sa.insert(table).values(_parameters(self.columns)))

    def bound_lot(self, dialect: sa.Dialect, lot: Lot) -> tuple[str, Any, Iterator[tuple[Any, ...]]]:
        """The text for the driver, the first row's values as it takes them, and of each row those that vary."""
        first = {name: column[0] for name, column in zip(VARYING, lot.varying, strict=True)}
        text, bound = self.bound(dialect, {**lot.shared, **first})
        time: Any = UtcTime().dialect_impl(dialect).bind_processor(dialect)
        return text, bound, lot.rows(time)

    def many(self, connection: sa.Connection, lots: Iterable[Lot]) -> None:
        """Execute it for all rows of these lots, with the driver's `executemany`."""
        rows: list[Any] = []
        text = ""
        for lot in lots:
            text, bound, varying = self.bound_lot(connection.dialect, lot)
            if isinstance(bound, dict):
                rows += [{**bound, **dict(zip(VARYING, each, strict=True))} for each in varying]
                continue
            for each in varying:
                row = list(bound)
                for at, value in zip(self.varying, each, strict=True):
                    row[at] = value
                rows.append(tuple(row))
        connection.exec_driver_sql(text, rows)
