"""No guard is without a mutant, no mutant without its guard; `make check-the-checks` plays them all."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
import sqlalchemy as sa

from confect_celery.store.dialects import dialect_for
from confect_celery.store.schema import scheduled_functions_table
from confect_celery.store.statements import Statements
from tests.property.check_the_checks import check
from tests.property.mutants import MUTANTS, PACKAGE, Mutant
from tests.property.patching import STATEMENTS, all_applied, answers, guards
from tests.support.databases import Databases

TABLE = scheduled_functions_table(sa.MetaData())
SQLITE = dialect_for(sa.make_url("sqlite://"))

PREPARED = {("store/statements/reconciling.py", "__init__"), ("store/statements/base.py", "_transition")}
"""Where the statements are made that `Statements` holds ready: `test_every_guard_has_a_mutant` finds those itself."""

MADE_IN_PLACE = {("store/statements/reconciling.py", "prune")}
"""A method's own: its mutants are named after it."""

NO_ROW_OF_OURS = {
    ("store/crons.py", "_swap"),
    ("store/query/writer.py", "delete"),
    ("store/query/writer.py", "_updated"),
    ("store/query/kept.py", "_update"),
}
"""Those of `_confect_crons` (tests/store/test_crons.py), and of the shop's own tables."""


def test_every_guard_has_a_mutant() -> None:
    prepared = {
        (name, guard)
        for name, statement in vars(Statements(TABLE, SQLITE)).items()
        if isinstance(statement, (sa.Update, sa.Delete, sa.Select))
        for guard in guards(statement)
        if isinstance(statement, (sa.Update, sa.Delete)) or "." in guard  # what a SELECT changes, it changes in a CTE
    }
    assert len(prepared) > 20
    assert prepared - {guard for mutant in MUTANTS for guard in mutant.guards} == set()


def test_every_update_is_known_here() -> None:
    found = set()
    for path in PACKAGE.rglob("*.py"):
        for function in ast.walk(ast.parse(path.read_text())):
            if isinstance(function, ast.FunctionDef) and any(map(_writes, ast.walk(function))):
                found.add((path.relative_to(PACKAGE).as_posix(), function.name))
    assert found == PREPARED | MADE_IN_PLACE | NO_ROW_OF_OURS
    assert {method for _, method in MADE_IN_PLACE} <= {name for mutant in MUTANTS for name, _ in mutant.guards}


def _writes(node: ast.AST) -> bool:
    match node:
        case ast.Call(func=ast.Attribute(value=ast.Name(id="sa"), attr="update" | "delete")):
            return True
        case ast.Call(func=ast.Name(id="update" | "delete")):
            return True
    return False


def test_the_names_are_different() -> None:
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_what_it_takes_away_is_still_there(mutant: Mutant) -> None:
    with all_applied(mutant.patches):
        Statements(TABLE, SQLITE)


@pytest.mark.parametrize("name", ["load", "prune"])
def test_a_name_is_found_in_the_room_that_defines_it(name: str) -> None:
    before = getattr(Statements, name)
    with answers(f"{STATEMENTS}.{name}", "instead").applied():
        assert getattr(Statements, name)() == "instead"
        assert name not in vars(Statements)
    assert getattr(Statements, name) is before


@pytest.mark.parametrize("name", ["no_more", "__repr__"])
def test_a_name_that_no_room_defines_is_an_error(name: str) -> None:
    with pytest.raises(LookupError, match=name), answers(f"{STATEMENTS}.{name}", None).applied():
        pass


@pytest.mark.timeout(120)
@pytest.mark.parametrize("name", ["start_due: any state", "succeed_running: any state"])
def test_it_is_noticed(name: str, databases: Databases, tmp_path: Path) -> None:
    mutant = next(each for each in MUTANTS if each.name == name)
    verdict = check(mutant, lambda kind: databases.url(kind, tmp_path))
    assert not verdict.wrong, str(verdict)
    assert verdict.caught and verdict.caught.startswith("guarantee")
