"""The project's own tests under Django's own runner: TestCase, TransactionTestCase, the test client."""

from __future__ import annotations

import re

import pytest

from tests.contrib.conftest import Project


@pytest.mark.timeout(180)
def test_the_projects_own_tests(project: Project) -> None:
    said = project.manage("test", "--noinput")
    ran = re.search(r"Ran (\d+) tests", said)
    assert ran is not None and int(ran[1]) >= 50 and "skipped" not in said, said


def test_from_zero_with_manage_py_alone(project: Project) -> None:
    assert "No changes detected" in project.manage("makemigrations", "--check", "--dry-run")
    said = project.manage("migrate")
    assert "Applying confect_celery.0001_initial... OK" in said, said
    assert "no issues" in project.manage("check", "--database", "default")
    code = "from webshop.celery import confect; confect.check(); print('checked')"
    assert "checked" in project.manage("shell", "-c", code)
