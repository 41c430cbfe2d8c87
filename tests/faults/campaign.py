"""A stream of jobs while everything they need is broken: `make faults`, or

    python -m tests.faults.campaign --jobs 3000 --minutes 5 --broker redis --database postgresql --seed 1

The same jobs go through Celery's own `apply_async(countdown=…)` beside it: same broker, same workers, same faults.
Exit code 1 unless nothing is lost, doubled, started twice, started after a cancel that returned True, or early.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from confect_celery import Duration, ScheduledFunction
from tests.faults import skew
from tests.faults.rig import Rig
from tests.faults.site import Site

CONFIG: dict[str, Any] = {"confect_redelivery": 4, "confect_min_delay": 0.5}
REDIS = {"broker_transport_options": {"visibility_timeout": 40}}
_TOLERANCE = 0.002
"""Seconds: the ledger's clock is this machine's, the due time the database's by a process that asked for it."""


@dataclass
class Report:
    """What came of the jobs. The first group must be 0."""

    lost: int = 0
    mutations_doubled: int = 0
    actions_started_twice: int = 0
    started_after_cancel: int = 0
    early: int = 0
    skew_seconds: float = 0
    scheduled: int = 0
    refused: int = 0
    canceled: int = 0
    succeeded: int = 0
    failed: dict[str, int] = field(default_factory=dict)
    run_twice: dict[str, int] = field(default_factory=dict)
    late_seconds: dict[str, float] = field(default_factory=dict)
    faults: dict[str, int] = field(default_factory=dict)
    native_scheduled: int = 0
    native_refused: int = 0
    native_lost: int = 0
    native_run_twice: int = 0
    native_early: int = 0
    native_late_seconds: dict[str, float] = field(default_factory=dict)
    seconds: float = 0
    latest: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    @property
    def kept(self) -> bool:
        """Whether every guarantee held."""
        return not (
            self.lost or self.mutations_doubled or self.actions_started_twice or self.started_after_cancel or self.early
        )


def percentiles(values: list[float]) -> dict[str, float]:
    """p50, p95, p99 and the greatest."""
    if not values:
        return {}
    values = sorted(values)
    return {f"p{n}": round(values[min(len(values) - 1, len(values) * n // 100)], 3) for n in (50, 95, 99, 100)}


class Campaign:
    """One run: `go()` gives the report."""

    def __init__(
        self,
        directory: Path,
        broker: str,
        database: str,
        jobs: int,
        seconds: float,
        seed: int,
        patience: float,
        skew: float = 0,
    ) -> None:
        """`skew`: how many seconds the clocks of hosts are off; not for SQLite, which has but one host."""
        self._patience = patience
        self.directory, self.jobs, self.seconds = directory, jobs, seconds
        self.skew = 0 if database == "sqlite" else skew
        self.dice = random.Random(seed)
        with ExitStack() as started:
            self.site = Site(directory, broker, database)
            started.callback(self.site.close)
            config = CONFIG | (REDIS if broker != "rabbitmq" else {})
            self.rig = Rig(directory, self.site.broker_url, self.site.database_url, config)
            started.callback(self.rig.close)
            for ahead in (self.skew, -self.skew):
                self.rig.worker("--pool", "prefork", "--concurrency", "2", ahead=ahead)
            self.rig.dispatcher(ahead=self.skew)
            self._close = started.pop_all()
        self.report = Report(skew_seconds=self.skew)
        self.ids: dict[str, str] = {}
        self.kinds: dict[str, str] = {}
        self.cancels: dict[str, float | None] = {}
        self.moved: dict[str, float] = {}
        self.native_due: dict[str, float] = {}
        self._over = threading.Event()

    def go(self) -> Report:
        """Run it."""
        began = time.monotonic()
        delays = [self.dice.uniform(0.6, min(15.0, self.seconds / 4)) for _ in range(self.jobs)]
        threads = [threading.Thread(target=self._stream, args=(work, delays)) for work in (self._ours, self._native)]
        keeper = threading.Thread(target=self._supervise)
        for thread in (*threads, keeper):
            thread.start()
        try:
            self._break()
            for thread in threads:
                thread.join()
            self._drain()
        finally:
            self._over.set()
            keeper.join()
        self.report.seconds = round(time.monotonic() - began, 1)
        self._judge()
        return self.report

    def close(self) -> None:
        """End everything."""
        self._close.close()

    # -- the jobs

    def _stream(self, work: Any, delays: list[float]) -> None:
        began, pace = time.monotonic(), self.seconds / len(delays)
        dice = random.Random(len(delays))
        for number, delay in enumerate(delays):
            ahead = began + number * pace - time.monotonic()
            if ahead > 0:
                time.sleep(ahead)
            work(number, delay, dice)

    def _ours(self, number: int, delay: float, dice: random.Random) -> None:
        kind = dice.choice(list(self.rig.shop.FUNCTIONS))
        job = f"{kind}-{number}"
        scheduler = self.rig.confect.scheduler
        try:
            id = str(scheduler.run_after(Duration.seconds(delay), self.rig.shop.FUNCTIONS[kind], {"job": job}))
        except Exception:
            self.report.refused += 1
            return
        self.ids[job], self.kinds[job] = id, kind
        if number % 10 == 3:
            victim = dice.choice([other for other in list(self.ids)[-40:] if other not in self.cancels])
            try:
                if scheduler.cancel(self.ids[victim]):
                    self.cancels[victim] = self.rig.shop.now()
            except Exception:
                self.cancels[victim] = None  # nobody knows
        elif number % 10 == 6:
            moved = dice.choice(list(self.ids)[-40:])
            try:
                if scheduler.reschedule(self.ids[moved], Duration.seconds(dice.uniform(0.6, 8))):
                    self.moved[moved] = self.rig.shop.now()
            except Exception:
                self.report.refused += 1

    def _native(self, number: int, delay: float, _: random.Random) -> None:
        job = f"native-{number}"
        due = self.rig.shop.now() + delay
        try:
            self.rig.shop.native.apply_async([job], countdown=delay)
        except Exception:
            self.report.native_refused += 1
            return
        self.native_due[job] = due

    # -- the faults

    def _supervise(self) -> None:
        while not self._over.wait(0.5):
            self.rig.supervise()

    def _break(self) -> None:
        faults = self.site.faults(self.rig, self.dice, self.skew)
        until = time.monotonic() + self.seconds
        counted: Counter[str] = Counter()
        while True:
            names = list(faults)
            self.dice.shuffle(names)
            for name in names:
                time.sleep(self.dice.uniform(1.5, 4.0))
                if time.monotonic() > until:
                    self.report.faults = dict(counted)
                    return
                print(f"{time.strftime('%H:%M:%S')} {name}", flush=True)
                faults[name]()
                counted[name] += 1

    def _drain(self) -> None:
        until = time.monotonic() + 90
        while time.monotonic() < until:
            rows = self.rig.rows()
            if all(row.state.kind.terminal for row in rows.values()):
                break
            time.sleep(0.5)
        # Celery's own messages that a dead worker held come back when their visibility is over and a worker starts.
        ran = self.rig.ledger()
        if self._patience and any(job not in ran for job in self.native_due):
            time.sleep(self._patience)
            for worker in list(self.rig.workers):
                worker.end()
            time.sleep(12)

    # -- the judgement

    def _judge(self) -> None:
        report, rows, ledger, effects = self.report, self.rig.rows(), self.rig.ledger(), self.rig.effects()
        report.scheduled, report.native_scheduled = len(self.ids), len(self.native_due)
        failed: Counter[str] = Counter()
        twice: Counter[str] = Counter()
        late: list[tuple[float, str]] = []
        for job, id in self.ids.items():
            row, kind = rows.get(id), self.kinds[job]
            events = ledger.get(job, [])
            starts = [at for at, event in events if event == "start"]
            ends = [at for at, event in events if event == "end"]
            if self._lost(job, row, bool(ends)):
                report.lost += 1
                report.wrong.append(f"lost: {job} {id} {row and row.state} {events}")
            if row is None:
                continue
            if row.state.kind == "failed":
                failed[f"{kind} {row.state.error.tag if row.state.error else None}"] += 1
            report.succeeded += row.state.kind == "success"
            report.canceled += row.state.kind == "canceled"
            twice[kind] += len(ends) > 1
            due = row.scheduled_time.to_utc().timestamp()
            # A task that waits for its retry may be moved as well: what ran before that was of the time before.
            timed = [at for at in starts if at > self.moved.get(job, 0)]
            if row.state.kind != "canceled" and timed:
                late.append((timed[0] - due, f"{job} {id} attempt {row.attempt}, {row.deliveries} deliveries"))
                if timed[0] < due - _TOLERANCE:
                    report.early += 1
                    report.wrong.append(f"early: {job} {id} by {due - timed[0]:.4f} s {events}")
            if kind == "mutation" and effects.get(job, 0) != int(row.state.kind == "success"):
                report.mutations_doubled += 1
                report.wrong.append(f"effects: {job} {id} {row.state} {effects.get(job, 0)}")
            if kind == "action" and len(starts) > 1:
                report.actions_started_twice += 1
                report.wrong.append(f"started twice: {job} {id} {events}")
            canceled_at = self.cancels.get(job)
            # One that was claimed a moment before its cancel may write its first line a moment after.
            if canceled_at is not None and any(at > canceled_at + 0.5 for at in starts):
                report.started_after_cancel += 1
                report.wrong.append(f"after cancel: {job} {id} {canceled_at} {events}")
        report.failed, report.run_twice = dict(failed), {kind: n for kind, n in twice.items() if n}
        report.late_seconds = percentiles([seconds for seconds, _ in late])
        report.latest = [f"late by {seconds:.1f} s: {what}" for seconds, what in sorted(late)[:-6:-1]]
        ran = {job: [at for at, event in ledger.get(job, []) if event == "start"] for job in self.native_due}
        report.native_lost = sum(not starts for starts in ran.values())
        report.native_run_twice = sum(len(starts) > 1 for starts in ran.values())
        lags = [ran[job][0] - due for job, due in self.native_due.items() if ran[job]]
        report.native_late_seconds = percentiles(lags)
        report.native_early = sum(lag < -_TOLERANCE for lag in lags)

    def _lost(self, job: str, row: ScheduledFunction | None, ran: bool) -> bool:
        if row is None or not row.state.kind.terminal:
            return True
        if row.state.kind == "canceled":
            return job not in self.cancels
        if row.state.kind == "failed":  # what may start but once may die; what may be tried again may not
            return self.kinds[job] in ("mutation", "late") or row.state.error is None
        return not ran


def run(
    broker: str,
    database: str,
    jobs: int,
    seconds: float,
    seed: int,
    directory: Path,
    *,
    patience: float = 42,
    skew: float = 3,
) -> Report:
    """One campaign on servers of its own; after it Celery's own messages have `patience` seconds to come back."""
    campaign = Campaign(directory, broker, database, jobs, seconds, seed, patience, skew)
    try:
        return campaign.go()
    finally:
        campaign.close()


def table(report: Report) -> str:
    """The report to be read."""
    lines = [
        f"{name.replace('_', ' '):24} {value}"
        for name, value in asdict(report).items()
        if name not in ("latest", "wrong")
    ]
    return "\n".join([*lines, *report.latest, *report.wrong[:30]])


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.campaign", description="A fault campaign.")
    parser.add_argument("--jobs", type=int, default=3000)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--broker", choices=("redis", "rabbitmq", "valkey"), default="redis")
    parser.add_argument("--database", choices=("postgresql", "mariadb", "sqlite"), default="postgresql")
    parser.add_argument("--skew", type=float, default=3.0, help="seconds by which clocks of hosts are off; 0 for none")
    parser.add_argument("--json", type=Path, help="write the report to this file as well")
    given = parser.parse_args()
    if given.skew and given.database != "sqlite" and (reason := skew.missing()) is not None:
        parser.error(f"{reason}; or ask for --skew 0")
    directory = Path(tempfile.mkdtemp(prefix="confect-faults-"))
    print(f"logs and ledger: {directory}")
    report = run(given.broker, given.database, given.jobs, given.minutes * 60, given.seed, directory, skew=given.skew)
    print(table(report))
    if given.json:
        given.json.write_text(json.dumps(asdict(report), indent=2))
    return 0 if report.kept else 1


if __name__ == "__main__":
    sys.exit(main())
