"""A row that answers by attribute."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["Document"]


class Document(Mapping[str, Any]):
    """One row of a table, read-only: `user.email`, or `user["email"]` where the name is a Python word or a mapping's
    own, as `items`.

    Times are `DateTime`s; JSON columns are plain dicts and lists. It does not change when the row does.
    """

    __slots__ = ("_fields", "_table")

    def __init__(self, table: str, fields: Mapping[str, Any]) -> None:
        object.__setattr__(self, "_table", table)
        object.__setattr__(self, "_fields", dict(fields))

    def __getattr__(self, name: str) -> Any:
        fields: dict[str, Any] = object.__getattribute__(self, "_fields")
        try:
            return fields[name]
        except KeyError:
            close = difflib.get_close_matches(name, fields, 1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise AttributeError(f"a document of {self._table!r} has no field {name!r}{hint}") from None

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"documents are read-only: use db.table({self._table!r}).patch(id, {{{name!r}: …}})")

    def __delattr__(self, name: str) -> None:
        self.__setattr__(name, None)

    def __getitem__(self, name: str) -> Any:
        return self._fields[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Document):
            return (self._table, self._fields) == (other._table, other._fields)
        return self._fields == dict(other) if isinstance(other, Mapping) else NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self._fields]

    def __reduce__(self) -> tuple[Any, ...]:
        return Document, (self._table, self._fields)

    def __repr__(self) -> str:
        return f"Document({self._table!r}, {self._fields!r})"
