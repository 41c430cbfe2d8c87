"""One place inside a JSON column, as each database reads it: what is there, and its value as a text or a number.

Keys are any text. Only plain words stand in the SQL itself, so that an index on the same expression can serve; all
others are bound. Each database's rules for keys are kept here.
"""

from __future__ import annotations

import datetime as dt
import enum
import json
import re
import uuid
from abc import ABC, abstractmethod
from decimal import Decimal
from typing import Any, ClassVar, Final, Literal

import sqlalchemy as sa
from pydantic_core import to_jsonable_python
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects.postgresql import JSONB

from confect_celery.errors import InvalidFilter
from confect_celery.store.query.operands import checked_number, checked_text
from confect_celery.timing import DateTime, Duration

__all__ = ["JsonKind", "JsonPlace", "Path", "json_place", "scalar"]

Path = tuple[str | int, ...]
JsonKind = Literal["text", "number", "boolean"]

_WORD: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_SAFE: Final = re.compile(r"[$.\[\]A-Za-z0-9_]+", re.ASCII)
# SQLite before 3.45 compares a label with the document's own text, escapes and all: only these match themselves.
_OWN_TEXT: Final = re.compile(r"[ !#-\[\]-~]+", re.ASCII)
_EXACT_IN_DOUBLE: Final = 2**53
_INT64: Final = 2**63
_DIALECT: Final[sa.Dialect] = postgresql.dialect()  # type: ignore[no-untyped-call]


class JsonPlace(ABC):
    """`kind` is the database's word for what is there, NULL for nothing; read `text` and the like by it alone."""

    kinds: ClassVar[dict[JsonKind, tuple[str, ...]]]
    null: ClassVar[str] = "null"
    kind: sa.ColumnElement[str]
    text: sa.ColumnElement[Any]
    """Equal to just the same text."""
    number: sa.ColumnElement[Any]
    boolean: sa.ColumnElement[bool]

    @property
    def sortable_text(self) -> sa.ColumnElement[Any]:
        """The text, sorting by code point."""
        return self.text

    @property
    def sortable_number(self) -> sa.ColumnElement[Any]:
        """The number, exact for integers of 64 bits."""
        return self.number

    def holds(self, kind: JsonKind) -> sa.ColumnElement[bool]:
        """There is such a value: "1" is not 1, and true is neither."""
        wanted = self.kinds[kind]
        return self.kind == wanted[0] if len(wanted) == 1 else self.kind.in_(wanted)

    def absent(self) -> sa.ColumnElement[bool]:
        """There is nothing, or JSON's null."""
        return sa.or_(self.kind.is_(None), self.kind == self.null)

    @abstractmethod
    def against(self, value: float | Decimal) -> tuple[sa.ColumnElement[Any], sa.ColumnElement[Any]]:
        """The number there and this one, as two sides that compare by value: 1 is 1.0."""

    def document_has(self, value: str | float | Decimal) -> list[sa.ColumnElement[bool]]:
        """What more holds wherever that text or number is there, said of the whole document: it lets a database that
        indexes whole documents use the index."""
        return []


class _Sqlite(JsonPlace):
    kinds: ClassVar[dict[JsonKind, tuple[str, ...]]] = {
        "text": ("text",),
        "number": ("integer", "real"),
        "boolean": ("true", "false"),
    }

    def __init__(self, column: sa.ColumnElement[Any], path: Path) -> None:
        if all(isinstance(step, int) or _OWN_TEXT.fullmatch(step) for step in path):
            steps = _constant("$" + "".join(self._step(step) for step in path))
            self.text, self.kind = sa.func.json_extract(column, steps), sa.func.json_type(column, steps)
        else:
            self.text, self.kind = self._walk(column, path)
        self.number = self.text
        self.boolean = self.kind == "true"

    @staticmethod
    def _step(step: str | int) -> str:
        return f"[{step}]" if isinstance(step, int) else f".{step}" if _WORD.fullmatch(step) else f'."{step}"'

    @staticmethod
    def _walk(document: Any, path: Path) -> tuple[sa.ColumnElement[Any], sa.ColumnElement[str]]:
        value = kind = document
        for step in path:
            each = sa.func.json_each(document).table_valued("key", "value", "type")
            # A text may hold JSON too; it is not looked into.
            deeper = sa.case((each.c.type.in_(("object", "array")), each.c.value))
            value, kind, document = (
                sa.select(wanted).where(each.c.key == step).limit(1).scalar_subquery()
                for wanted in (each.c.value, each.c.type, deeper)
            )
        return value, kind

    def against(self, value: float | Decimal) -> tuple[sa.ColumnElement[Any], sa.ColumnElement[Any]]:
        """SQLite compares integers with reals exactly, but has no others."""
        whole = int(value) if value == int(value) else None
        fits = whole is not None and -_INT64 <= whole < _INT64
        return self.number, sa.literal(whole, sa.BigInteger()) if fits else sa.literal(float(value), sa.Float())


class _Postgresql(JsonPlace):
    kinds: ClassVar[dict[JsonKind, tuple[str, ...]]] = {
        "text": ("string",),
        "number": ("number",),
        "boolean": ("boolean",),
    }

    def __init__(self, column: sa.ColumnElement[Any], path: Path) -> None:
        # `->` and `->>` rather than one path: they tell a key from an index, an index `((args ->> 'user_id'))` serves
        # them, and SQLAlchemy writes a path as an array literal without quoting its keys.
        inside, text = column, column.op("#>>", return_type=sa.Text())(sa.literal("{}", sa.Text()))
        arrays = []
        for step in path:
            if isinstance(step, int):  # to jsonb a text or number is an array of itself
                arrays.append(self._kind(inside) == "array")
            key = sa.literal_column(str(step), sa.Integer()) if isinstance(step, int) else _constant(step)
            inside, text = (
                inside.op("->", return_type=sa.JSON())(key),
                inside.op("->>", return_type=sa.Text())(key),
            )
        self._document, self._path = column, path
        self.text = text
        self.kind = sa.case((sa.and_(*arrays), self._kind(inside))) if arrays else self._kind(inside)
        self.number = sa.cast(text, sa.Numeric())
        self.boolean = text == sa.literal("true", sa.Text())

    @staticmethod
    def _kind(inside: sa.ColumnElement[Any]) -> sa.ColumnElement[str]:
        return sa.func.jsonb_typeof(sa.cast(inside, JSONB))  # of `json` columns too

    @property
    def sortable_text(self) -> sa.ColumnElement[Any]:
        """Not by the database's own collation."""
        return sa.collate(self.text, "C")

    def against(self, value: float | Decimal) -> tuple[sa.ColumnElement[Any], sa.ColumnElement[Any]]:
        """As decimals: 0.1 is what JSON writes as 0.1."""
        return self.number, sa.literal(_exact(value), sa.Numeric())

    def document_has(self, value: str | float | Decimal) -> list[sa.ColumnElement[bool]]:
        """`@>`, which a GIN index serves; it compares numbers by value as well."""
        names = [step for step in self._path if isinstance(step, str)]
        # What is no jsonb knows no `@>`, and in an array it asks for any place, not for one.
        if not names or len(names) < len(self._path) or not _is_jsonb(self._document):
            return []
        part = json.dumps(value) if isinstance(value, str) else str(_exact(value))
        for name in reversed(names):
            part = f"{{{json.dumps(name)}: {part}}}"
        return [self._document.op("@>", return_type=sa.Boolean())(sa.cast(sa.literal(part, sa.Text()), JSONB))]


class _Mysql(JsonPlace):
    kinds: ClassVar[dict[JsonKind, tuple[str, ...]]] = {
        "text": ("STRING",),
        "number": ("INTEGER", "UNSIGNED INTEGER", "DOUBLE", "DECIMAL"),
        "boolean": ("BOOLEAN",),
    }
    null: ClassVar[str] = "NULL"

    def __init__(self, column: sa.ColumnElement[Any], path: Path) -> None:
        inside = self._inside(column, path)
        # `[0]` of what is no array is the thing itself here, and nothing elsewhere.
        arrays = [
            sa.func.json_type(self._inside(column, path[:depth])) == "ARRAY"
            for depth, step in enumerate(path)
            if isinstance(step, int)
        ]
        kind = sa.func.json_type(inside)
        self.kind = sa.case((sa.and_(*arrays), kind)) if arrays else kind
        self._plain = plain = sa.func.json_unquote(inside, type_=sa.Text())
        self._decimal: sa.ColumnElement[Any] = sa.cast(plain, sa.DECIMAL(65, 0))
        # As bytes: the collations would ignore trailing blanks, and some of them case.
        self.text = sa.type_coerce(sa.cast(plain, sa.BINARY()), sa.Text())
        self.number = inside.op("+", return_type=sa.Double())(sa.literal_column("0e0"))
        self.boolean = plain == "true"

    @classmethod
    def _inside(cls, column: sa.ColumnElement[Any], path: Path) -> sa.ColumnElement[Any]:
        if not path:
            return column
        # MariaDB knows a key only as the document writes it, and SQLAlchemy's JSON writes é as \u00e9.
        spellings = dict.fromkeys(cls._steps(path, ascii_only) for ascii_only in (False, True))
        found = [sa.func.json_extract(column, _constant(steps)) for steps in spellings]
        return found[0] if len(found) == 1 else sa.func.coalesce(*found)

    @staticmethod
    def _steps(path: Path, ascii_only: bool) -> str:
        return "$" + "".join(
            f"[{step}]"
            if isinstance(step, int)
            else f".{step if _WORD.fullmatch(step) else json.dumps(step, ensure_ascii=ascii_only)}"
            for step in path
        )

    @property
    def sortable_number(self) -> sa.ColumnElement[Any]:
        """Beyond 35 digits all are alike."""
        return sa.cast(self._plain, sa.DECIMAL(65, 30))

    def against(self, value: float | Decimal) -> tuple[sa.ColumnElement[Any], sa.ColumnElement[Any]]:
        """As doubles, integers beyond their precision as decimals."""
        if isinstance(value, int) and abs(value) >= _EXACT_IN_DOUBLE:
            return self._decimal, sa.literal(Decimal(value), sa.DECIMAL(65, 0))
        return self.number, sa.literal(float(value), sa.Double())


def _exact(value: float | Decimal) -> Decimal:
    return Decimal(repr(value)) if isinstance(value, float) else Decimal(value)


def _is_jsonb(column: sa.ColumnElement[Any]) -> bool:
    return isinstance(column.type.dialect_impl(_DIALECT), JSONB)


def _constant(text: str) -> sa.ColumnElement[str]:
    return sa.literal_column(f"'{text}'", sa.Text()) if _SAFE.fullmatch(text) else sa.literal(text, sa.Text())


def json_place(column: sa.ColumnElement[Any], path: Path, dialect: str) -> JsonPlace:
    """The place at `path` in a JSON column, the whole document for an empty one."""
    if dialect == "sqlite":
        return _Sqlite(column, path)
    return _Postgresql(column, path) if dialect == "postgresql" else _Mysql(column, path)


def scalar(value: object, *, ordered: bool = False) -> tuple[JsonKind, Any]:
    """`value` as JSON holds it, and of which kind: times, durations and UUIDs are texts there.

    Raises InvalidFilter for what is no text, number or boolean, and where less and greater are asked (`ordered`) of a
    value whose text has another order: of an instant across zones and fractions of a second.
    """
    if isinstance(value, enum.Enum):
        value = value.value
    match value:
        case bool():
            return "boolean", value
        case Decimal() if ordered:
            raise InvalidFilter(f"JSON holds decimals as text, which has another order: compare {value!r} as a float.")
        case int() | float() | Decimal():
            return "number", checked_number(value)
        case str():
            return "text", checked_text(value)
        case uuid.UUID():
            return "text", str(value)
        case dt.date() if not isinstance(value, dt.datetime):
            return "text", value.isoformat()
        case DateTime() | dt.datetime() | dt.time() | Duration() | dt.timedelta():
            if ordered:
                raise InvalidFilter(
                    f"JSON holds {value!r} as text, whose order is not that of time: "
                    "keep it in a column, or as a number, to order by it."
                )
            if isinstance(value, dt.datetime):
                DateTime.of(value)  # refuses one without a zone
            return "text", to_jsonable_python(value)
    raise InvalidFilter(f"{value!r} cannot be compared with a place inside JSON: use a text, number, boolean or None.")
