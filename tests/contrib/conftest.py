"""A Django project in processes of its own: Django's settings are one a process, and they would outlive the test."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.databases import DATABASES, Databases
from tests.support.processes import ROOT

PROJECT = ROOT / "tests" / "django_project"


class Project:
    """tests/django_project on two fresh databases of one kind."""

    def __init__(self, kind: str, url: str, other_url: str) -> None:
        self.kind = kind
        self.url = url
        self.env = {
            "TEST_DATABASE_URL": url,
            "TEST_OTHER_DATABASE_URL": other_url,
            "DJANGO_SETTINGS_MODULE": "webshop.settings",
            "PYTHONPATH": f"{PROJECT}{os.pathsep}{ROOT}",
        }

    def manage(self, *arguments: str, within: float = 120, **env: str) -> str:
        """Run a command of manage.py, warnings being errors; gives back what it printed."""
        done = subprocess.run(
            [sys.executable, "-W", "error", "manage.py", *arguments],
            env={**os.environ, **self.env, **env},
            cwd=PROJECT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=within,
            check=False,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout


@pytest.fixture(params=DATABASES)
def project(request: pytest.FixtureRequest, databases: Databases, tmp_path: Path) -> Iterator[Project]:
    with ExitStack() as stack:
        urls = [stack.enter_context(databases.url(request.param, tmp_path)) for _ in range(2)]
        yield Project(request.param, *urls)
