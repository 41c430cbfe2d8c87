"""The eight guarantees against a stateful property test: `machine.py` is what happens, `model.py` what must hold.

SQLite runs always; in CI PostgreSQL and MariaDB too, and with `CONFECT_LONG=1` more examples of each.

Each run draws anew, but in CI, where what is red must be the change's own doing; and a failure prints its seed:
`CONFECT_SEED=<seed> pytest tests/property/test_guarantees.py` draws the same again. Hypothesis also prints a
`@reproduce_failure('<version>', b'<blob>')`: with `CONFECT_REPRODUCE='<version>:<blob>'` that one example is played
again at once. And it remembers failures in `.hypothesis/`, from where the next run begins.
"""

from __future__ import annotations

import logging
import os
import secrets
from pathlib import Path

import pytest
from hypothesis import HealthCheck, reproduce_failure, seed, settings
from hypothesis.stateful import get_state_machine_test

from tests.property.actors import Play
from tests.property.machine import Guarantees
from tests.support.databases import DATABASES, Databases

LONG = os.environ.get("CONFECT_LONG") == "1"
CI = os.environ.get("CI") == "true"
EVERYWHERE = LONG or CI
KINDS = os.environ.get("CONFECT_DATABASES", "").split() or (DATABASES if EVERYWHERE else DATABASES[:1])
EXAMPLES = int(os.environ.get("CONFECT_EXAMPLES", "400" if LONG else "100"))
STEPS = int(os.environ.get("CONFECT_STEPS", "40" if LONG else "30"))


@pytest.mark.timeout(1800 if LONG else 900)  # a minute, but CI may have little of a machine
@pytest.mark.parametrize("kind", KINDS)
def test_the_guarantees_hold(kind: str, databases: Databases, tmp_path: Path) -> None:
    begun_with = int(os.environ.get("CONFECT_SEED") or (1 if CI else secrets.randbits(32)))
    with databases.url(kind, tmp_path) as url:
        play = Play(url)
        logging.disable(logging.CRITICAL)  # thousands of announced troubles
        try:
            run = get_state_machine_test(
                lambda: Guarantees(play),
                settings=settings(
                    max_examples=EXAMPLES,
                    stateful_step_count=STEPS,
                    deadline=None,
                    print_blob=True,
                    suppress_health_check=list(HealthCheck),
                ),
            )
            blob = os.environ.get("CONFECT_REPRODUCE")
            if blob:
                version, _, encoded = blob.partition(":")
                reproduce_failure(version, encoded.encode())(run)()
            else:
                seed(begun_with)(run)()
        finally:
            for what, count in sorted(play.happened.items()):
                print(f"{count:7} {what}")
            print(f"{kind}: {play.examples} examples, {play.steps} steps; again with CONFECT_SEED={begun_with}")
            logging.disable(logging.NOTSET)
            play.close()
