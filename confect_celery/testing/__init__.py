"""Testing a shop: its functions, its table and its gate, in one process, with a clock that the test moves."""

from confect_celery.testing.harness import Harness, TooManyIterations, harness

__all__ = ["Harness", "TooManyIterations", "harness"]
