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


@pytest.mark.parametrize(
    "env",
    [
        {"TEST_SETTINGS": '{"USE_TZ": false}'},
        {"TEST_TIME_ZONE": "America/New_York"},
        {"TEST_SETTINGS": '{"CELERY_CONFECT_SCHEMA": "jobs"}'},
    ],
    ids=["naive", "zoned", "schema"],
)
@pytest.mark.timeout(180)
def test_under_other_settings(project: Project, env: dict[str, str]) -> None:
    suites = [f"accounts.tests.test_{name}" for name in ("times", "setup", "admin", "transactions")]
    said = project.manage("test", "--noinput", *suites, **env)
    assert "Ran 3" in said, said


def test_the_table_in_another_database_than_the_default(project: Project) -> None:
    env = {"TEST_SETTINGS": '{"CELERY_CONFECT_DATABASE_URL": "django://other"}'}
    project.manage("migrate", **env)
    project.manage("migrate", "--database", "other", **env)
    code = """
from confect_celery.contrib.django.models import ScheduledFunction
confect.check()
def schedule(alias):
    with transaction.atomic(using=alias):
        confect.scheduler.run_after(Duration.hours(1), remind, Text(account_id="a"))
        transaction.set_rollback(True, using=alias)
    return ScheduledFunction.objects.count()
result = [schedule("other"), schedule("default"), ScheduledFunction.objects.using("default").count()]
"""
    assert project.run(code, **env) == [0, 1, 0]


def test_from_zero_with_manage_py_alone(project: Project) -> None:
    assert "No changes detected" in project.manage("makemigrations", "--check", "--dry-run")
    said = project.manage("migrate")
    assert "Applying confect_celery.0001_initial... OK" in said, said
    assert "no issues" in project.manage("check", "--database", "default")
    code = "from webshop.celery import confect; confect.check(); print('checked')"
    assert "checked" in project.manage("shell", "-c", code)
