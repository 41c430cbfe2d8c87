"""The state machine stands in three places: the table, the drawing, and the SQL. They are the same."""

from __future__ import annotations

import re

import pytest
import sqlalchemy as sa

from confect_celery.store import TRANSITIONS, StateKind
from confect_celery.store.dialects import dialect_for
from confect_celery.store.schema import scheduled_functions_table
from confect_celery.store.statements import Statements
from tests.support.processes import ROOT

EDGE = re.compile(r"^\s+(\S+) --> (\w+): (\w+)$", re.MULTILINE)


def edges() -> set[tuple[str, str, str]]:
    return {
        (left, transition.enters.value, name)
        for name, transition in TRANSITIONS.items()
        for left in ([kind.value for kind in transition.leaves] or ["[*]"])
    }


def test_the_drawing_shows_exactly_the_transitions_of_the_table() -> None:
    drawn = {tuple(edge) for edge in EDGE.findall((ROOT / "docs/states.md").read_text())}
    assert drawn == edges()


def test_terminal_states_are_never_left() -> None:
    assert not [kind for t in TRANSITIONS.values() for kind in t.leaves if kind.terminal]
    assert {kind.value for kind in StateKind if kind.terminal} == {"success", "failed", "canceled"}


STATEMENTS = Statements(scheduled_functions_table(sa.MetaData()), dialect_for(sa.make_url("sqlite://")))
SQL = list(vars(STATEMENTS).items())


@pytest.mark.parametrize(("name", "statement"), [(n, s) for n, s in SQL if isinstance(s, sa.Update)])
def test_every_update_names_in_its_text_the_states_it_leaves(name: str, statement: sa.Update) -> None:
    text = str(statement.compile())
    where = text.partition("WHERE")[2]
    left = {kind for kind in StateKind if f"state = '{kind.value}'" in where}
    assert left, text
    entered = re.search(r"SET .*?state='(\w+)'", text)
    target = StateKind(entered[1]) if entered else None
    known = {(frozenset(t.leaves), t.enters) for t in TRANSITIONS.values()}
    assert (frozenset(left), target) in known or (name == "_renew" and target is None), text
