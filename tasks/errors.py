"""The shop's errors: dataclasses that are exceptions.

Shows: a function that declares its errors, `errors=(MaxRetriesReached,)`, leaves their fields in its row:
`state.error` then has `tag` "MaxRetriesReached", the message, and the fields as `data`, to be read by a program and
not by a regular expression. An error that is not declared is a bug, and leaves its traceback.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any

__all__ = ["ShopError"]


class ShopError(Exception):
    """The root. Subclasses are `@dataclass(eq=False)`: an exception is itself, not its fields."""

    def __reduce__(self) -> tuple[type[ShopError], tuple[Any, ...]]:
        """Built anew from its fields, in their order, on its way from a pool's child into the result backend."""
        return type(self), tuple(getattr(self, field.name) for field in fields(self))  # type: ignore[arg-type]
