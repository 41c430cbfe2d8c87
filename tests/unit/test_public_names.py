"""What can be imported from the package is what is promised, no more and no less."""

from __future__ import annotations

import importlib
import pkgutil
import subprocess
import sys

import pytest

import confect_celery
from confect_celery import errors

# Alembic runs the one, and Django must be set up for the other: tests/contrib has their tests.
APART = (
    "confect_celery.store.migrations.env",
    "confect_celery.contrib.django.",
    "confect_celery.contrib.beat.database",
)

PROMISED = {
    *(
        "Confect",
        "Duration",
        "DateTime",
        "Clock",
        "SystemClock",
        "SettableClock",
        "Settings",
        "Scheduler",
        "FunctionRef",
        "CronJob",
        "CronJobs",
    ),
    *("DatabaseReader", "DatabaseWriter", "QueryRunner", "MutationRunner", "ActionRunner", "Document", "Page"),
    *("ScheduledFunction", "ScheduledFunctionId", "State", "StateKind", "ErrorInfo"),
}


def test_the_package_exports_what_the_contract_names() -> None:
    assert sorted(confect_celery.__all__) == sorted({*PROMISED, *errors.__all__})
    assert all(hasattr(confect_celery, name) for name in confect_celery.__all__)


def test_every_error_class_is_exported_and_in_one_tree() -> None:
    classes = {name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, Exception)}
    assert classes == set(errors.__all__)
    assert all(issubclass(getattr(errors, name), errors.ConfectError) for name in classes)


@pytest.mark.parametrize(
    "module",
    [m.name for m in pkgutil.walk_packages(confect_celery.__path__, "confect_celery.") if not m.name.startswith(APART)],
)
def test_every_module_says_what_it_exports(module: str) -> None:
    loaded = importlib.import_module(module)
    assert loaded.__doc__, "a module says what its room is for"
    for name in getattr(loaded, "__all__", []):
        assert hasattr(loaded, name)


def test_values_can_be_imported_without_celery_and_sqlalchemy() -> None:
    code = "import sys, importlib.util as u\n" + "sys.modules['confect_celery'] = type(sys)('confect_celery')\n"
    code += f"sys.modules['confect_celery'].__path__ = {list(confect_celery.__path__)!r}\n"
    code += "import confect_celery.timing, confect_celery.functions, confect_celery.settings\n"
    code += "assert not {'celery', 'kombu', 'sqlalchemy', 'django'} & set(sys.modules), sorted(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
