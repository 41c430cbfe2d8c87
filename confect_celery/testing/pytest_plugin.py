"""The pytest plugin: the fixture `confect_harness`, for a suite that defines a fixture `confect`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from confect_celery.app import Confect
    from confect_celery.testing.harness import Harness

__all__ = ["confect_harness"]


@pytest.fixture
def confect_harness(confect: Confect) -> Iterator[Harness]:
    """The shop of the suite's `confect` fixture under the harness, on its configured database."""
    from confect_celery.testing.harness import harness  # only suites that use it pay for the import

    with harness(confect) as it:
        yield it
