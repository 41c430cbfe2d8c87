"""Random filters over random rows: the SQL finds what a few lines of Python find."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from confect_celery.store.query import Condition, Filter
from tests.store.query_tables import Tables, open_tables
from tests.support.databases import DATABASES, Databases

COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "lt": operator.lt,
    "lte": operator.le,
    "gt": operator.gt,
    "gte": operator.ge,
}
KINDS: dict[str, str] = {"age": "number", "shoe": "number", "name": "text", "verified": "boolean"}
PLACES = ["data.a", "data.b.0", "data.b.1.é", "binary_data.a"]

texts = st.sampled_from(["", "a", "A", "a ", "1", "é", "𝔘", "true", "null", '"', "\\", "%"])
numbers = st.one_of(
    st.integers(-3, 3),
    st.sampled_from([0.5, -1.5, 1.0, 0.1, 2**53, 2**53 + 1, -(2**63), 2**63 - 1]),
)
scalars = st.one_of(st.none(), st.booleans(), texts, numbers)
documents = st.one_of(
    st.none(),
    st.fixed_dictionaries(
        {},
        optional={
            "a": scalars,
            "b": st.one_of(scalars, st.lists(scalars | st.fixed_dictionaries({"é": scalars}), max_size=2)),
        },
    ),
)
rows = st.fixed_dictionaries(
    {
        "age": st.none() | st.integers(-3, 3),
        "shoe": st.none() | st.integers(-3, 3),
        "name": st.none() | texts,
        "verified": st.none() | st.booleans(),
        "data": documents,
        "binary_data": documents,
    }
)


def kind(value: Any) -> str | None:
    if isinstance(value, bool):
        return "boolean"
    return "text" if isinstance(value, str) else "number" if isinstance(value, (int, float)) else None


def value_of(row: dict[str, Any], path: str) -> Any:
    """The scalar at the path, None where there is none; an array or object as itself."""
    found: Any = row
    for step in path.split("."):
        if step.isdigit():
            found = found[int(step)] if isinstance(found, list) and int(step) < len(found) else None
        else:
            found = found.get(step) if isinstance(found, dict) else None
    return found


def equal(a: Any, b: Any) -> bool:
    return a is None and b is None if kind(a) is None or kind(b) is None else kind(a) == kind(b) and a == b


def ordered(name: str, a: Any, b: Any) -> bool:
    return kind(a) in ("text", "number") and kind(a) == kind(b) and COMPARE[name](a, b)


@dataclass(frozen=True)
class Model:
    """A filter, and what it means."""

    build: Callable[[Filter], Condition]
    holds: Callable[[dict[str, Any]], bool]
    text: str

    def __repr__(self) -> str:
        return self.text


@st.composite
def comparisons(draw: st.DrawFn) -> Model:
    path = draw(st.sampled_from([*KINDS, *PLACES]))
    operand = {"number": numbers, "text": texts, "boolean": st.booleans()}.get(KINDS.get(path, ""), scalars)
    name = draw(st.sampled_from(["eq", "neq", "in_", "lt", "gte", "fields"]))
    if name == "in_":
        values = draw(st.lists(operand | st.none(), max_size=3))
        return Model(
            lambda q: q.in_(q.field(path), values),
            lambda row: any(equal(value_of(row, path), value) for value in values),
            f"in_({path}, {values})",
        )
    if name == "fields":
        others = [other for other in KINDS if path in PLACES or KINDS[other] == KINDS[path]] + PLACES
        other, op = draw(st.sampled_from(others)), draw(st.sampled_from(["eq", "lte"]))
        if op == "lte" and "boolean" in (KINDS.get(path), KINDS.get(other)):
            op = "eq"
        return Model(
            lambda q: getattr(q, op)(q.field(path), q.field(other)),
            lambda row: (equal if op == "eq" else lambda a, b: ordered(op, a, b))(
                value_of(row, path), value_of(row, other)
            ),
            f"{op}({path}, {other})",
        )
    if name in COMPARE:
        value = draw({"number": numbers, "text": texts}.get(KINDS.get(path, ""), texts | numbers))
        if KINDS.get(path) == "boolean":
            path = "data.a"
        return Model(
            lambda q: getattr(q, name)(q.field(path), value),
            lambda row: ordered(name, value_of(row, path), value),
            f"{name}({path}, {value!r})",
        )
    value = draw(operand | st.none())
    return Model(
        lambda q: getattr(q, name)(q.field(path), value),
        lambda row: equal(value_of(row, path), value) is (name == "eq"),
        f"{name}({path}, {value!r})",
    )


def combined(inner: st.SearchStrategy[Model]) -> st.SearchStrategy[Model]:
    several = st.lists(inner, max_size=3)
    return st.one_of(
        inner.map(lambda m: Model(lambda q: q.not_(m.build(q)), lambda row: not m.holds(row), f"not_({m})")),
        several.map(
            lambda ms: Model(
                lambda q: q.and_(*(m.build(q) for m in ms)), lambda row: all(m.holds(row) for m in ms), f"and_({ms})"
            )
        ),
        several.map(
            lambda ms: Model(
                lambda q: q.or_(*(m.build(q) for m in ms)), lambda row: any(m.holds(row) for m in ms), f"or_({ms})"
            )
        ),
    )


filters = st.recursive(comparisons(), combined, max_leaves=5)


@pytest.fixture(params=DATABASES, scope="module")
def db(request: pytest.FixtureRequest, databases: Databases, tmp_path_factory: Any) -> Iterator[Tables]:
    directory: Path = tmp_path_factory.mktemp("model")
    with open_tables(databases, request.param, directory) as tables:
        yield tables


def check(db: Tables, stored: list[dict[str, Any]], models: list[Model]) -> None:
    db.connection.execute(db.store.catalog.open("people", db.connection).resolver.table.delete())
    db.people(*stored)
    for model in models:
        expected = [n for n, row in enumerate(stored) if model.holds(row)]
        assert db.who(model.build) == expected, model
        assert db.table("people").filter(model.build).count() == len(expected)


@pytest.mark.timeout(300)
def test_filters_agree_with_python(db: Tables) -> None:
    examples = 250 if db.connection.dialect.name == "sqlite" else 40

    @settings(max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(rows, max_size=6), st.lists(filters, min_size=1, max_size=6))
    def run(stored: list[dict[str, Any]], models: list[Model]) -> None:
        check(db, stored, models)

    run()
