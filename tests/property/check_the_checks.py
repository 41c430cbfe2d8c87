"""Checks the check: takes one guard after the other out of the package, and the stateful test must notice each.

    python -m tests.property.check_the_checks            every mutant, two at a time
    python -m tests.property.check_the_checks NAME …     those whose names begin so

Exits 1 where a mutant survives, where one that is called equivalent is noticed, or where the package as it is
violates anything. Each is played in a process of its own, with a seed that is printed: CONFECT_SEED draws others.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.property.mutants import MUTANTS, Mutant
from tests.property.patching import all_applied

EXAMPLES: Final = {"sqlite": 300, "postgresql": 200}
FEW_EXAMPLES: Final = 15
"""Before the drill; of what need not be noticed, and of the package as it is, there are no more after it."""
STEPS: Final = 30
AT_MOST_SECONDS: Final = 300
"""Five times what the longest takes on two quiet cores: only a play that hangs comes there, on a loaded machine too."""
SEED: Final = os.environ.get("CONFECT_SEED") or "1"

Urls = Callable[[str], AbstractContextManager[str]]


@dataclass(frozen=True)
class Verdict:
    """What came of one mutant; `caught` is what noticed it, if anything did."""

    mutant: Mutant
    caught: str | None
    broken: str | None
    examples: int
    seconds: float

    @property
    def wrong(self) -> bool:
        """Whether the check has failed here."""
        return self.broken is not None or (self.caught is None) is (self.mutant.equivalent is None)

    def __str__(self) -> str:
        if self.broken is not None:
            said = f"BROKEN: {self.broken}"
        elif self.caught is None:
            said = f"equivalent: {self.mutant.equivalent}" if self.mutant.equivalent else "SURVIVED"
        else:
            said = f"NOT EQUIVALENT: {self.caught}" if self.mutant.equivalent else self.caught
        what = f"{self.mutant.name} [{self.mutant.database}]"
        where = self.mutant.file if self.mutant.patches else ""
        return f"{what:<76} {where:<31} {self.examples:>4} examples {self.seconds:5.1f} s  {said[:600]}"


UNHARMED: Final = tuple(Mutant("(as it is)", (), database, equivalent="nothing is left out") for database in EXAMPLES)


def play(name: str, url: str, kind: str, examples: int) -> None:
    """In a process of its own: play until something is violated, and print what."""
    mutant = next(m for m in (*MUTANTS, *UNHARMED) if m.name == name)
    logging.disable(logging.CRITICAL)
    with all_applied(mutant.patches):
        caught, broken, played = _play(url, examples)
    print(json.dumps({"caught": caught, "broken": broken, "examples": played}), flush=True)
    os._exit(0)


def _play(url: str, examples: int) -> tuple[str | None, str | None, int]:
    from hypothesis import HealthCheck, Phase, seed, settings
    from hypothesis.stateful import get_state_machine_test

    from tests.property import holding
    from tests.property.actors import Play
    from tests.property.incidents import drill
    from tests.property.machine import Guarantees
    from tests.property.model import Violation

    stage = Play(url)

    def chance(most: int) -> None:
        chosen = settings(
            max_examples=most,
            stateful_step_count=STEPS,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck),
        )
        seed(int(SEED))(get_state_machine_test(lambda: Guarantees(stage), settings=chosen))()

    try:
        chance(min(examples, FEW_EXAMPLES))
        holding.drill(stage)
        drill(stage)
        if examples > FEW_EXAMPLES:
            chance(examples)
    except (Violation, AssertionError) as error:  # the package asserts that no transition by id changed two rows
        return f"{Violation.raised or error}".splitlines()[0], None, stage.examples
    except Exception as error:
        if Violation.raised is not None:
            return str(Violation.raised), None, stage.examples
        return None, f"{type(error).__name__}: {error}".splitlines()[0], stage.examples
    return None, None, stage.examples


def check(mutant: Mutant, urls: Urls) -> Verdict:
    """Play one mutant."""
    begun = time.monotonic()
    examples = EXAMPLES[mutant.database] if mutant.equivalent is None else FEW_EXAMPLES
    with urls(mutant.database) as url:
        argv = [sys.executable, "-W", "ignore", "-m", "tests.property.check_the_checks", "--play", mutant.name, url]
        argv += [mutant.database, str(examples)]
        try:
            ran = subprocess.run(argv, capture_output=True, text=True, timeout=AT_MOST_SECONDS, check=False)
        except subprocess.TimeoutExpired:
            return Verdict(mutant, None, "the play never came to its end", 0, time.monotonic() - begun)
    lines = [line for line in ran.stdout.splitlines() if line.startswith("{")]
    if not lines:
        return Verdict(mutant, None, ran.stderr.strip()[-500:], 0, time.monotonic() - begun)
    told = json.loads(lines[-1])
    return Verdict(mutant, told["caught"], told["broken"], told["examples"], time.monotonic() - begun)


def main(names: Sequence[str]) -> int:
    """Check them all, print the table."""
    from tests.support.databases import Databases

    chosen = [m for m in (*UNHARMED, *MUTANTS) if not names or m.name.startswith(tuple(names))]
    begun, wrong = time.monotonic(), 0
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # the servers must end with us
    databases = Databases()
    with ExitStack() as stack:
        stack.callback(databases.stop)
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for kind in {m.database for m in chosen} - {"sqlite"}:
            databases.server(kind)
        with ThreadPoolExecutor(2) as pool:
            for verdict in pool.map(lambda m: check(m, lambda kind: databases.url(kind, directory)), chosen):
                wrong += verdict.wrong
                print(verdict, flush=True)
    mutants = [m for m in chosen if m.patches]
    equivalent = sum(m.equivalent is not None for m in mutants)
    print(
        f"{len(mutants)} mutants, {equivalent} of them equivalent; {wrong} wrong; {time.monotonic() - begun:.0f} s; "
        f"CONFECT_SEED={SEED}"
    )
    return 1 if wrong else 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["--play"]:
        play(sys.argv[2], sys.argv[3], sys.argv[4], int(sys.argv[5]))
    sys.exit(main(sys.argv[1:]))
