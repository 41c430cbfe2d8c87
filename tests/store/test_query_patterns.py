"""Patterns: every database agrees with Python, whatever its LIKE or GLOB makes of special characters."""

from __future__ import annotations

import re

import pytest

from confect_celery.errors import InvalidFilter
from tests.store.query_tables import Tables

TEXTS = [
    *(
        "",
        "*",
        "a",
        "A",
        "anna",
        "Anna",
        "an_na",
        "anXna",
        "50%",
        "50 %",
        "[a]",
        "a]",
        "a?",
        "ab",
        "!a",
        "!",
        "\\",
        "\\*",
    ),
    *(
        "a\nb",
        "Zoé",
        "zoe\u0301",
        "𝔘",
        "internal/users/remind",
        "internal/users_x/remind",
        "xinternal/users/remind",
        "a ",
    ),
]
PATTERNS = {
    **{text: re.escape(text) for text in TEXTS if not set(text) & set("*\\")},
    **{
        "*": ".*",
        "a*": "a.*",
        "*a": ".*a",
        "*a*": ".*a.*",
        "an_*": "an_.*",
        "**": ".*",
        "a*b": "a.*b",
        "*[a*": r".*\[a.*",
    },
    **{"internal/users/*": "internal/users/.*", "*/remind": ".*/remind", "Zo*": "Zo.*", "*é": ".*é", "*!*": ".*!.*"},
    **{r"\*": r"\*", r"\\": r"\\", r"\\\*": r"\\\*", r"*\**": r".*\*.*", "\\": r"\\", r"\a": r"\\a", "5*%": "5.*%"},
}


@pytest.mark.parametrize("column", ["name", "nick", "data.text", "binary_data.text"])
def test_patterns_agree_with_python(db: Tables, column: str) -> None:
    # "nick" has the database's own collation, which on MariaDB ignores case and knows no more than Latin letters.
    first, *inner = column.split(".")
    texts = [text for text in TEXTS if column != "nick" or all(ord(char) < 256 for char in text)]
    db.people(*({first: {"text": text} if inner else text} for text in texts), {first: {"text": 5} if inner else None})
    for pattern, meant in PATTERNS.items():
        wanted = [number for number, text in enumerate(texts) if re.fullmatch(meant, text, re.DOTALL)]
        found = db.who(lambda q, pattern=pattern: q.matches(q.field(column), pattern))  # type: ignore[misc]
        assert found == wanted, pattern


def test_the_opposite_holds_for_the_rest_and_the_absent(db: Tables) -> None:
    db.people({"name": "anna"}, {"name": "zoe"}, {"name": None})
    assert db.who(lambda q: q.not_(q.matches(q.field("name"), "a*"))) == [1, 2]


def test_functions_are_found_by_the_beginning_of_their_names(db: Tables) -> None:
    mine = db.schedule("internal/users/remind", {})
    db.schedule("internal/Users/remind", {})
    db.schedule("internal/users", {})
    table = db.table("_scheduled_functions")
    assert [row.id for row in table.filter(lambda q: q.matches(q.field("name"), "internal/users/*"))] == [mine]


@pytest.mark.parametrize("pattern", [None, 5, "x" * 1001, "a\0b", "\ud800", "*a" * 11])
def test_what_is_no_pattern_is_refused(db: Tables, pattern: str) -> None:
    with pytest.raises(InvalidFilter):
        db.who(lambda q: q.matches(q.field("name"), pattern))


@pytest.mark.parametrize("column", ["age", "verified", "seen", "token", "mood", "data"])
def test_only_texts_match(db: Tables, column: str) -> None:
    with pytest.raises(InvalidFilter, match="no texts"):
        db.who(lambda q: q.matches(q.field(column), "a*"))


def test_the_first_side_is_a_field(db: Tables) -> None:
    with pytest.raises(InvalidFilter, match="field first"):
        db.who(lambda q: q.matches("name", "a*"))
