"""What the type checkers see of the public API: mypy --strict and pyright must agree on every line of `cases/`.

A line marked `# E` must have an error from both checkers, every other line from neither. The good lines of a case say
with `assert_type` what they are.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CASES = sorted((Path(__file__).parent / "cases").glob("[!_]*.py"))
BIN = Path(sys.executable).parent

Found = dict[tuple[str, int], str]

_MARKED = re.compile(r"  # E$")
_MYPY = re.compile(r"(?P<path>[^:]+):(?P<line>\d+):(?:\d+:)? error: (?P<text>.*)")


def _run(*command: str) -> str:
    done = subprocess.run([str(BIN / command[0]), *command[1:]], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def mypy(tmp_path_factory: pytest.TempPathFactory) -> Found:
    cache = tmp_path_factory.mktemp("mypy")  # its own: `make check` may run beside it
    options = ["--strict", "--no-error-summary", "--hide-error-context", "--cache-dir", str(cache)]
    output = _run("mypy", *options, *map(str, CASES))
    matches = filter(None, map(_MYPY.fullmatch, output.splitlines()))
    return {(Path(match["path"]).name, int(match["line"])): match["text"] for match in matches}


@pytest.fixture(scope="module")
def pyright() -> Found:
    # A project of its own: the package's excludes the cases, whose errors are meant.
    options = ["--project", str(CASES[0].parent), "--pythonpath", sys.executable, "--outputjson"]
    reports = json.loads(_run("pyright", *options))["generalDiagnostics"]
    return {
        (Path(report["file"]).name, report["range"]["start"]["line"] + 1): report["message"]
        for report in reports
        if report["severity"] == "error"
    }


def _marked(case: Path) -> set[int]:
    return {number for number, line in enumerate(case.read_text().splitlines(), 1) if _MARKED.search(line)}


@pytest.mark.timeout(180)
@pytest.mark.parametrize("checker", ["mypy", "pyright"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.stem)
def test_exactly_the_marked_lines_are_errors(case: Path, checker: str, request: pytest.FixtureRequest) -> None:
    everywhere: Found = request.getfixturevalue(checker)
    found = {line: text for (name, line), text in everywhere.items() if name == case.name}
    marked = _marked(case)
    missed = [f"line {line} is no error" for line in sorted(marked - found.keys())]
    surplus = [f"line {line}: {text}" for line, text in sorted(found.items()) if line not in marked]
    assert not missed + surplus, "\n".join(missed + surplus)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.stem)
def test_a_case_shows_both_what_is_right_and_what_is_wrong(case: Path) -> None:
    assert _marked(case)
    assert "assert_type(" in case.read_text()
