"""A Django project in processes of its own: Django's settings are one a process, and they would outlive the test."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

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

    def run(self, code: str, **env: str) -> Any:
        """Run `code` in the project's shell; gives back what it left as `result`."""
        prelude = "import json\nfrom accounts.models import *\nfrom accounts.tasks import *\n"
        prelude += "from django.db import connection, transaction\n"
        said = self.manage("shell", "-c", f"{prelude}{code}\nprint(json.dumps(result, default=str))", **env)
        return json.loads(said.splitlines()[-1])


@contextmanager
def new_project(kind: str, databases: Databases, directory: Path) -> Iterator[Project]:
    with ExitStack() as stack:
        urls = [stack.enter_context(databases.url(kind, directory)) for _ in range(2)]
        yield Project(kind, *urls)


@pytest.fixture(params=DATABASES)
def project(request: pytest.FixtureRequest, databases: Databases, tmp_path: Path) -> Iterator[Project]:
    with new_project(request.param, databases, tmp_path) as it:
        yield it
