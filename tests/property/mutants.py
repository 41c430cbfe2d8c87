"""Checks the check: takes one guard after the other out of the package, and the stateful test must notice each.

    python -m tests.property.mutants            every mutant, two at a time; exits 1 where one survives
    python -m tests.property.mutants NAME …     only these

A mutant is a change of a module's text, made while Python imports it: nothing in the package knows of it. A text that
is not found exactly once is an error, so that no mutant silently stops meaning anything. Those that are marked
`equivalent` change nothing that a guarantee speaks of; the reason stands beside them and they need not be noticed.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import CodeType
from typing import Any, Final

EXAMPLES: Final = {"sqlite": 600, "postgresql": 300}
STEPS: Final = 30
AT_MOST_SECONDS: Final = 200
ALL_STATES: Final = "(_P, _I, _S, _F, _C)"


@dataclass(frozen=True)
class Mutant:
    """`old` becomes `new` in the module `confect_celery.<module>`."""

    name: str
    module: str
    old: str
    new: str
    database: str = "sqlite"
    equivalent: str | None = None


def _state(transition: str, leaves: str, enters: str, database: str = "sqlite", **more: Any) -> Mutant:
    old = f'"{transition}": Transition({leaves}, {enters})'
    return Mutant(
        f"{transition}: any state",
        "store.row",
        old,
        f'"{transition}": Transition({ALL_STATES}, {enters})',
        database,
        **more,
    )


def _attempt(statement: str, old: str, database: str = "sqlite", **more: Any) -> Mutant:
    new = old.replace("sa.and_(one, attempt)", "sa.and_(one, sa.or_(attempt, sa.not_(attempt)))")
    return Mutant(f"{statement}: any attempt", "store.statements", old, new, database, **more)


MUTANTS: Final[Sequence[Mutant]] = (
    # -- the states that a transition may leave
    _state("succeed_pending", "(_P,)", "_S", "postgresql"),
    _state("fail_pending", "(_P,)", "_F"),
    _state("start", "(_P,)", "_I"),
    _state("succeed_running", "(_I,)", "_S"),
    _state("fail_running", "(_I,)", "_F"),
    _state("retry", "(_I,)", "_P"),
    _state("hand_over", "(_P,)", "_P"),
    _state("reschedule", "(_P,)", "_P"),
    _state("postpone", "(_P,)", "_P"),
    _state("cancel", "(_P, _I)", "_C"),
    # -- the attempt that it is for
    _attempt(
        "succeed_pending",
        'self._transition("succeed_pending", sa.and_(one, attempt), done)',
        "postgresql",
    ),
    _attempt("fail_pending", 'self._transition("fail_pending", sa.and_(one, attempt), {**done, "error": error})'),
    _attempt("succeed_running", 'self._transition("succeed_running", sa.and_(one, attempt), done)'),
    _attempt("fail_running", 'self._transition("fail_running", sa.and_(one, attempt), {**done, "error": error})'),
    _attempt("postpone", 'self._transition("postpone", sa.and_(one, attempt), again)'),
    _attempt("lose", 'self._transition("postpone", sa.and_(one, attempt), lost)'),
    _attempt("retry", '"retry",\n            sa.and_(one, attempt),'),
    _attempt("requeue", 'self._transition("retry", sa.and_(one, attempt), lost)'),
    _attempt("start", 'self._transition("start", sa.and_(one, attempt), {"next_at": then'),
    _attempt("take_back", 'self._transition("hand_over", sa.and_(one, attempt), {"next_at": then'),
    Mutant(
        "load: any attempt",
        "store.statements",
        'c.attempt == sa.bindparam("at_attempt"), _is(c.state, StateKind.PENDING)',
        'c.attempt >= sa.bindparam("at_attempt") * 0, _is(c.state, StateKind.PENDING)',
    ),
    Mutant(
        "load: any state",
        "store.statements",
        'c.attempt == sa.bindparam("at_attempt"), _is(c.state, StateKind.PENDING)',
        'c.attempt == sa.bindparam("at_attempt")',
    ),
    Mutant(
        "start: the attempt does not grow",
        "store.statements",
        'sa.and_(one, attempt), {"next_at": then, "attempt": c.attempt + 1})',
        'sa.and_(one, attempt), {"next_at": then, "attempt": c.attempt})',
    ),
    Mutant(
        "reschedule: the attempt does not grow",
        "store.statements",
        '"next_at": then,\n                "attempt": c.attempt + 1,',
        '"next_at": then,\n                "attempt": c.attempt,',
    ),
    # -- the dispatcher's choice
    Mutant(
        "due: rows that were handed over are taken ahead as well",
        "store.statements",
        "sa.or_(c.deliveries == 0, c.next_at <= now),",
        "sa.or_(c.deliveries == 0, c.next_at <= now, c.next_at <= ahead),",
    ),
    Mutant(
        "due: in any state",
        "store.statements",
        "c.next_at <= ahead,\n            _is(c.state, StateKind.PENDING),",
        "c.next_at <= ahead,",
    ),
    Mutant(
        "due: the last ones first",
        "store.statements",
        ".where(due)\n            .order_by(c.next_at, c.id)",
        ".where(due)\n            .order_by(c.next_at.desc(), c.id)",
    ),
    Mutant(
        "due: far ahead",
        "runtime.dispatcher",
        "ahead = now + settings.horizon",
        "ahead = now + settings.horizon * 100",
    ),
    Mutant("hand_over: no doubling", "store.statements", "redelivery * 2**n for n", "redelivery for n"),
    Mutant("hand_over: never again", "store.statements", "redelivery * 2**n for n", "redelivery * 10**9 for n"),
    Mutant(
        "outbox: publishes before it is due",
        "runtime.dispatcher",
        "if wait > 0:",
        "if wait > 1e9:",
        equivalent="the eta stands in the message and the gate looks at the row's time: a worker holds it till then",
    ),
    Mutant(
        "outbox: a refused message is not given back",
        "runtime.dispatcher",
        "self.give_back(delivery, max(delivery.due, self._clock.now() + _REFUSED_AGAIN_AFTER))",
        "pass",
        equivalent="the message then counts as lost, and is published again after confect_redelivery: only later",
    ),
    # -- the gate
    Mutant("gate: no lock", "runtime.gate", "not database.dialect.try_lock(connection, row.id)", "False", "postgresql"),
    Mutant(
        "gate: no second look under the lock",
        "runtime.gate",
        " or not rows.load(connection, row.id, row.attempt):",
        ":",
    ),
    Mutant(
        "gate: success is not looked at",
        "runtime.gate",
        "if not rows.succeed_pending(connection, row.id, row.attempt, self._clock.now()):",
        "if rows.succeed_pending(connection, row.id, row.attempt, self._clock.now()) is None:",
        "postgresql",
    ),
    Mutant(
        "gate: success in a transaction of its own",
        "runtime.gate",
        "if not rows.succeed_pending(connection, row.id, row.attempt, self._clock.now()):\n"
        "                raise _NotOurs",
        "transaction.after_commit(lambda: database.retrying(lambda t: rows.succeed_pending(t.connection, row.id, "
        "row.attempt, self._clock.now())))",
    ),
    Mutant("gate: does not wait for the time", "runtime.gate", "self._wait_until_due(row)", "pass"),
    Mutant(
        "gate: the claim's answer is not heard",
        "runtime.gate",
        "if not self._store.database.retrying(claim, tries=_TRIES):",
        "if self._store.database.retrying(claim, tries=_TRIES) is None:",
    ),
    Mutant(
        "gate: an error counts as success",
        "runtime.gate",
        "rows.fail_running(transaction.connection, row.id, attempt, self._clock.now(), described)",
        "rows.succeed_running(transaction.connection, row.id, attempt, self._clock.now())",
    ),
    Mutant(
        "gate: a transient error fails the mutation",
        "runtime.gate",
        "if database.dialect.is_transient(error):\n                return self._postpone(row, error)",
        "",
    ),
    # -- the reconciler
    Mutant(
        "reconciler: no lease is renewed", "runtime.reconciler", "ids = list(self._running())", "ids: list[str] = []"
    ),
    Mutant("reconciler: nobody is buried", "runtime.reconciler", "        if dead:\n", "        if False:\n"),
    Mutant(
        "reconciler: buried before the lease is over",
        "store.statements",
        "dead = sa.and_(c.next_at <= now, _is(c.state, StateKind.IN_PROGRESS))",
        "dead = sa.and_(sa.or_(c.next_at <= now, c.next_at > now), _is(c.state, StateKind.IN_PROGRESS))",
    ),
    Mutant(
        "reconciler: one death is enough", "runtime.reconciler", "_MOST_LOSSES: Final = 3", "_MOST_LOSSES: Final = 1"
    ),
    Mutant(
        "reconciler: an action's death is for another attempt",
        "runtime.reconciler",
        "if rows.fail_running(connection, id, attempt + 1, now, lost):",
        "if rows.fail_running(connection, id, attempt + 7, now, lost):",
        equivalent="nobody renews its lease any more, so the sweep buries it with the same tag: only later",
    ),
    Mutant(
        "renew: any state",
        "store.statements",
        "sa.update(table).where(picked, _is(c.state, StateKind.IN_PROGRESS))",
        "sa.update(table).where(picked)",
    ),
    Mutant(
        "prune: whatever its age",
        "store.statements",
        "c.completed_time < oldest, sa.or_(*self._finished)",
        "sa.or_(*self._finished)",
    ),
    Mutant(
        "prune: whatever its state",
        "store.statements",
        "c.completed_time < oldest, sa.or_(*self._finished)",
        "sa.or_(c.completed_time < oldest, c.completed_time.is_(None))",
    ),
    # -- the scheduler and its transactions
    Mutant(
        "transaction: what is in doubt is done again",
        "store.database",
        "if done and not guarded and self.dialect.is_disconnect(error):",
        "if False:",
        "postgresql",
    ),
    Mutant("scheduler: no budget", "scheduler", "if count > self.left:", "if count > 10**9:"),
    Mutant(
        "scheduler: may cancel itself", "scheduler", "if self._itself is not None and id == self._itself:", "if False:"
    ),
    Mutant(
        "scheduler: nobody is born canceled",
        "scheduler",
        "return StateKind.CANCELED if state is StateKind.CANCELED else StateKind.PENDING",
        "return StateKind.PENDING",
    ),
    Mutant(
        "scheduler: everything is near", "scheduler", "return due <= now + self._desk.settings.horizon", "return True"
    ),
    Mutant("scheduler: no shortest delay", "scheduler", "return when, max(when, now + shortest)", "return when, when"),
    Mutant(
        "scheduler: commits what it joins",
        "scheduler",
        "_run=lambda work: work(join(bind)), _reading=None",
        "_reading=None",
        "postgresql",
    ),
)


class _Importer(importlib.abc.MetaPathFinder):
    """Imports the mutated module in the real one's stead."""

    def __init__(self, mutant: Mutant) -> None:
        self._mutant = mutant

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        if fullname != f"confect_celery.{self._mutant.module}":
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        assert spec is not None and spec.origin is not None
        spec.loader = _Mutating(fullname, spec.origin, self._mutant)
        return spec


class _Mutating(importlib.machinery.SourceFileLoader):
    def __init__(self, fullname: str, path: str, mutant: Mutant) -> None:
        super().__init__(fullname, path)
        self._mutant = mutant

    def get_code(self, fullname: str) -> CodeType:
        return compile(mutated(self._mutant), self.path, "exec", dont_inherit=True)


def mutated(mutant: Mutant) -> str:
    """The module's changed text."""
    path = Path(__file__).parents[2] / "confect_celery" / f"{mutant.module.replace('.', '/')}.py"
    text = path.read_text()
    if text.count(mutant.old) != 1:
        raise LookupError(
            f"mutant {mutant.name!r}: found {text.count(mutant.old)} times in {path.name}: {mutant.old!r}"
        )
    return text.replace(mutant.old, mutant.new)


def play(name: str, url: str, kind: str) -> None:
    """In a process of its own: play until something is violated, and print what."""
    mutant = next((m for m in MUTANTS if m.name == name), None)
    if mutant is not None:
        sys.meta_path.insert(0, _Importer(mutant))
    import logging

    from hypothesis import HealthCheck, Phase, seed, settings
    from hypothesis.stateful import get_state_machine_test

    from tests.property.actors import Play
    from tests.property.machine import Guarantees

    logging.disable(logging.CRITICAL)
    stage = Play(url)
    run = get_state_machine_test(
        lambda: Guarantees(stage),
        settings=settings(
            max_examples=EXAMPLES[kind],
            stateful_step_count=STEPS,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        ),
    )
    caught = None
    try:
        seed(int(os.environ.get("CONFECT_SEED", "1")))(run)()
    except Exception as error:
        caught = f"{type(error).__name__}: {error}".splitlines()[0]
    print(json.dumps({"caught": caught, "examples": stage.examples}), flush=True)
    os._exit(0)


def check(mutant: Mutant, urls: Any) -> tuple[Mutant, str | None, int, float]:
    """What noticed it, if anything did; after how many examples and seconds."""
    begun = time.monotonic()
    with urls(mutant.database) as url:
        argv = [
            sys.executable,
            "-W",
            "ignore",
            "-m",
            "tests.property.mutants",
            "--play",
            mutant.name,
            url,
            mutant.database,
        ]
        try:
            ran = subprocess.run(argv, capture_output=True, text=True, timeout=AT_MOST_SECONDS, check=False)
        except subprocess.TimeoutExpired:
            return mutant, "Hang: the play never came to its end", 0, time.monotonic() - begun
    lines = [line for line in ran.stdout.splitlines() if line.startswith("{")]
    if not lines:
        raise RuntimeError(f"the mutant {mutant.name!r} could not be played:\n{ran.stderr[-3000:]}")
    told = json.loads(lines[-1])
    return mutant, told["caught"], told["examples"], time.monotonic() - begun


def main(names: Sequence[str]) -> int:
    """Check them all, print the table."""
    from contextlib import contextmanager

    from tests.support.databases import Databases

    chosen = [m for m in MUTANTS if not names or m.name in names]
    for mutant in chosen:
        mutated(mutant)
    survivors = 0
    databases = Databases()
    with ExitStack() as stack:
        stack.callback(databases.stop)
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        if any(m.database == "postgresql" for m in chosen):
            databases.server("postgresql")

        @contextmanager
        def urls(kind: str) -> Any:
            with databases.url(kind, directory) as url:
                yield url

        unharmed = [Mutant("(unharmed)", "", "", "", kind, "the package as it is") for kind in EXAMPLES]
        with ThreadPoolExecutor(2) as pool:
            for mutant, caught, examples, seconds in pool.map(lambda m: check(m, urls), [*unharmed, *chosen]):
                missed = caught is None and mutant.equivalent is None
                wrong = mutant in unharmed and caught is not None
                survivors += missed or wrong
                verdict = caught or ("SURVIVED" if missed else f"equivalent: {mutant.equivalent}")
                what = f"{mutant.name} [{mutant.database}]"
                print(f"{what:<66} {examples:>4} examples {seconds:5.1f} s  {verdict[:150]}", flush=True)
    print(f"{len(chosen)} mutants, {survivors} not noticed")
    return 1 if survivors else 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["--play"]:
        play(*sys.argv[2:5])
    sys.exit(main(sys.argv[1:]))
