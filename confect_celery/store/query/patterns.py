"""Texts compared with patterns: `*` stands for any text, all else for itself."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

import sqlalchemy as sa

from confect_celery.errors import InvalidFilter
from confect_celery.store.query.kinds import Kind, kind_of
from confect_celery.store.query.operands import checked_text
from confect_celery.store.query.values import by_bytes, declared_collation

__all__ = ["column_matches", "matches"]

_LONGEST: Final = 1000
_MOST_STARS: Final = 10
"""Each more multiplies the work of a database that looks for a text that does not match."""

_TOKEN: Final = re.compile(r"\\[*\\]|\*+|.", re.DOTALL)
_ESCAPE: Final = "!"


def column_matches(column: sa.Column[Any], pattern: str, dialect: str) -> sa.ColumnElement[bool]:
    """The text column matches; raises InvalidFilter for a column of another kind, and for what is no pattern."""
    if kind_of(column.type) is not Kind.TEXT:
        raise InvalidFilter(f"{column.key!r} holds no texts to match with a pattern.")
    # The default collations of MySQL ignore case; a declared one is the shop's own choice.
    exact = dialect in ("mysql", "mariadb") and not declared_collation(column)
    return matches(sa.type_coerce(by_bytes(column), sa.Text()) if exact else column, pattern, dialect)


def matches(text: sa.ColumnElement[Any], pattern: str, dialect: str) -> sa.ColumnElement[bool]:
    """The text matches the pattern; raises InvalidFilter for what is no pattern."""
    if not isinstance(pattern, str) or len(checked_text(pattern)) > _LONGEST:
        raise InvalidFilter(f"A pattern is a text of at most {_LONGEST:,} characters, not {str(pattern)[:80]!r}.")
    tokens = _TOKEN.findall(pattern)
    if sum(token[0] == "*" for token in tokens) > _MOST_STARS:
        raise InvalidFilter(f"A pattern has at most {_MOST_STARS} asterisks.")
    if dialect == "sqlite":  # its LIKE ignores the case of ASCII
        return text.bool_op("GLOB")(
            sa.literal(_spelt(tokens, "*", lambda char: f"[{char}]" if char in "*?[" else char))
        )
    like = _spelt(tokens, "%", lambda char: _ESCAPE + char if char in f"%_{_ESCAPE}" else char)
    return text.like(sa.literal(like, sa.Text()), escape=_ESCAPE)


def _spelt(tokens: list[str], any_text: str, one: Callable[[str], str]) -> str:
    return "".join(any_text if token[0] == "*" else one(token[-1]) for token in tokens)
