"""Every example that is shown runs: those of the docstrings, and those of the README."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import re
from pathlib import Path

import pytest

import confect_celery
from tests.support.processes import ROOT

# Alembic runs the one, and Django must be set up for the other: tests/contrib has their tests.
APART = (
    "confect_celery.store.migrations.env",
    "confect_celery.contrib.django.",
    "confect_celery.contrib.beat.database",
)

MODULES = [
    m.name for m in pkgutil.walk_packages(confect_celery.__path__, "confect_celery.") if not m.name.startswith(APART)
]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("module", MODULES)
def test_docstrings(module: str) -> None:
    failed, _ = doctest.testmod(importlib.import_module(module), optionflags=doctest.ELLIPSIS)
    assert failed == 0


def test_there_are_examples_at_all() -> None:
    found = [m for m in MODULES if doctest.DocTestFinder(exclude_empty=True).find(importlib.import_module(m))]
    assert found


@pytest.mark.parametrize(
    "page", ["README.md", "docs/moving-in.md", "docs/crons.md", "docs/beat.md", "docs/observability.md"]
)
def test_the_python_of_a_page_runs_in_order(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # the embedded default writes its file where it stands
    text = (ROOT / page).read_text()
    blocks = BLOCK.findall(text)
    assert blocks
    namespace: dict[str, object] = {"__name__": "readme"}
    for block in blocks:
        line = text[: text.index(block)].count("\n")
        exec(compile("\n" * line + block, str(ROOT / page), "exec"), namespace)  # the README is ours


NAMED = re.compile(r"`(tests/[\w./]+)`|`(confect_\w+?(?:_total|_seconds|_outbox))\b")


@pytest.mark.parametrize("page", ["docs/guarantees.md", "docs/faults.md"])
def test_the_tests_and_metrics_that_a_page_names_exist(page: str) -> None:
    named = NAMED.findall((ROOT / page).read_text())
    metrics = (ROOT / "docs/observability.md").read_text()
    assert len(named) > 1
    assert [path for path, _ in named if path and not (ROOT / path).exists()] == []
    assert [metric for _, metric in named if metric and f"`{metric}`" not in metrics] == []
