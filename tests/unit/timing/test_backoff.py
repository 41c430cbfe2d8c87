"""Waits that differ take nothing from the shop's own dice."""

from __future__ import annotations

import ast
import random
from pathlib import Path

import confect_celery
from confect_celery.timing import backoff, jitter

PACKAGE = Path(confect_celery.__file__).parent


def test_it_is_between_the_two_and_another_each_time() -> None:
    drawn = [jitter(0.5, 1.5) for _ in range(100)]
    assert all(0.5 <= each <= 1.5 for each in drawn) and len(set(drawn)) == 100


def test_what_a_shop_has_seeded_goes_on_as_if_nobody_had_drawn() -> None:
    before = random.getstate()
    jitter(0.5, 1.5)
    assert random.getstate() == before


def test_nobody_else_in_the_package_throws_dice() -> None:
    """A thread of ours that did, while another module's test draws with Hypothesis, failed that test."""
    found = {
        path
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if (isinstance(node, ast.Import) and any(alias.name == "random" for alias in node.names))
        or (isinstance(node, ast.ImportFrom) and node.module == "random")
    }
    assert found == {Path(backoff.__file__)}
