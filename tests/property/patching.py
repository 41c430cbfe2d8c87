"""Takes a guard out of the running package, by the names of its statements and functions; no source is touched.

What is not found under its name is a `LookupError`: a mutant must never silently stop meaning anything.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

import sqlalchemy as sa
from sqlalchemy.sql import operators, visitors
from sqlalchemy.sql.elements import BooleanClauseList, Grouping

STATEMENTS = "store.statements:Statements"


@dataclass(frozen=True)
class Patch:
    """`target`, `<module>:<attribute path>` in the package, becomes `make(what it was)`."""

    target: str
    make: Callable[[Any], Any]

    def place(self) -> tuple[Any, str]:
        """What the last name stands in, and that name. Of a class it is the one that defines it: itself or a base."""
        module, _, path = self.target.partition(":")
        *owners, last = path.split(".")
        owner: Any = importlib.import_module(f"confect_celery.{module}")
        for name in owners:
            if name not in vars(owner):
                raise LookupError(f"{self.target}: there is no {name!r} any more")
            owner = vars(owner)[name]
        for each in inspect.getmro(owner) if inspect.isclass(owner) else (owner,):
            if each is not object and last in vars(each):
                return each, last
        raise LookupError(f"{self.target}: there is no {last!r} any more")

    @contextmanager
    def applied(self) -> Iterator[None]:
        """For the length of the block."""
        owner, last = self.place()
        with mock.patch.object(owner, last, self.make(vars(owner)[last])):
            yield


@contextmanager
def all_applied(patches: tuple[Patch, ...]) -> Iterator[None]:
    """Every one of them."""
    with ExitStack() as stack:
        for patch in patches:
            stack.enter_context(patch.applied())
        yield


# -- functions


def call(target: str, instead: Callable[..., Any]) -> Patch:
    """`instead(original, *args, **kwargs)` is called in the function's place."""

    def make(original: Any) -> Any:
        def called(*args: Any, **kwargs: Any) -> Any:
            return instead(original, *args, **kwargs)

        return called

    return Patch(target, make)


def constant(target: str, value: Any) -> Patch:
    """Another value of a constant."""
    return Patch(target, lambda _: value)


def answers(target: str, value: Any) -> Patch:
    """The function does nothing, and gives back `value`."""
    return call(target, lambda *_, **__: value)


def unheard(target: str) -> Patch:
    """The function does what it does, and says that it did, whether or not that is so."""

    def instead(original: Any, *args: Any, **kwargs: Any) -> bool:
        original(*args, **kwargs)
        return True

    return call(target, instead)


# -- statements


def conjuncts(clause: Any) -> Iterator[Any]:
    """The parts that AND joins."""
    while isinstance(clause, Grouping):  # made anew each time that one asks for the WHERE
        clause = clause.element
    if isinstance(clause, BooleanClauseList) and clause.operator is operators.and_:
        for part in clause.clauses:
            yield from conjuncts(part)
    elif clause is not None:
        yield clause


def guards(statement: Any) -> dict[str, list[Any]]:
    """What a statement demands of a row besides its id, by the columns that each demand looks at; of an UPDATE
    in a CTE after the CTE's name."""
    found: dict[str, list[Any]] = {}
    ctes = [each for each in visitors.iterate(statement) if isinstance(each, sa.CTE)]
    clauses = [("", statement.whereclause), *((f"{each.name}.", each.element.whereclause) for each in ctes)]
    for of, part in ((of, part) for of, clause in clauses for part in conjuncts(clause)):
        columns = {each.name for each in visitors.iterate(part) if isinstance(each, sa.Column)}
        if columns - {"id"}:
            found.setdefault(of + "+".join(sorted(columns)), []).append(part)
    return found


def without(statement: Any, guard: str) -> Any:
    """The same statement with that guard left out."""
    dropped = guards(statement).get(guard)
    if dropped is None:
        raise LookupError(f"no guard on {guard!r} any more; there are {sorted(guards(statement))} in: {statement}")
    always = sa.literal_column("(1 = 1)", sa.Boolean)
    mutated = visitors.replacement_traverse(
        statement, {}, lambda part, **_: always if any(part is one for one in dropped) else None
    )
    if guard in guards(mutated):
        raise LookupError(f"the guard on {guard!r} could not be left out of: {statement}")
    return mutated


def statement(attribute: str, change: Callable[[Any, Any], Any]) -> Patch:
    """The prepared statement `attribute` becomes `change(it, the table's columns)`."""

    def make(init: Any) -> Any:
        def made(self: Any, *args: Any, **kwargs: Any) -> None:
            init(self, *args, **kwargs)
            if attribute not in vars(self):
                raise LookupError(f"{STATEMENTS}: there is no statement {attribute!r} any more")
            setattr(self, attribute, change(vars(self)[attribute], self.table.c))

        return made

    return Patch(f"{STATEMENTS}.__init__", make)


def unguarded(attribute: str, guard: str) -> Patch:
    """The prepared statement without its guard on these columns."""
    return statement(attribute, lambda before, _: without(before, guard))


def unchanged(attribute: str, column: str) -> Patch:
    """The prepared UPDATE leaves the column as it is."""

    def change(before: Any, columns: Any) -> Any:
        if column not in before.compile().params and f"{column}=" not in str(before).replace(" ", ""):
            raise LookupError(f"{attribute} does not set {column!r} any more: {before}")
        return before.values({column: columns[column]})

    return statement(attribute, change)


class _Through:
    """A connection whose UPDATEs and DELETEs lose a guard on their way."""

    def __init__(self, connection: Any, guard: str) -> None:
        self._connection, self._guard = connection, guard

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def execute(self, statement: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(statement, (sa.Update, sa.Delete)):
            statement = without(statement, self._guard)
        return self._connection.execute(statement, *args, **kwargs)


def unguarded_inside(method: str, *dropped: str) -> Patch:
    """The statements that a method of the store builds itself, without these guards."""

    def instead(original: Any, rows: Any, connection: Any, *args: Any, **kwargs: Any) -> Any:
        for guard in dropped:
            connection = _Through(connection, guard)
        return original(rows, connection, *args, **kwargs)

    return call(f"{STATEMENTS}.{method}", instead)
