"""What every peer's module offers, and what they share: the clock around calls, worker processes, the list of runs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Protocol

import sqlalchemy as sa

ROOT = Path(__file__).resolve().parents[2]
RUNS = "PEERS_RUNS"  # the environment variable that tells the worker's process where to note its runs
WARM_UP = 20
DRAIN_SECONDS, QUIET_SECONDS = 180.0, 30.0
START_SECONDS = 4.0  # how long a worker is given until it surely listens

Rates = dict[str, float]


@dataclass(frozen=True)
class Servers:
    """Where to measure: an empty PostgreSQL database (`postgresql+psycopg://…`) and a Redis."""

    postgres_url: str
    redis_url: str

    @property
    def libpq_url(self) -> str:
        """The database's address as psycopg itself reads it."""
        return self.postgres_url.replace("postgresql+psycopg:", "postgresql:", 1)


@dataclass(frozen=True)
class Plan:
    """So many jobs that become due evenly over `spread` seconds; 0: all at one instant."""

    jobs: int
    spread: float

    def lags(self, commands: list[list[str]], schedule: Callable[[list[datetime]], object]) -> Rates:
        """Start `python COMMAND` for each of the commands, have `schedule` take all the due times, and tell how many
        milliseconds after its time each job started.

        The k-th due time is the k-th job's. How long it takes to schedule them is rehearsed with a few that are due in
        an hour. RuntimeError: the first was due before all were scheduled.
        """
        with directory_of_runs() as runs, _running(commands, runs) as alive:
            time.sleep(START_SECONDS if commands else 0)
            begun = time.perf_counter()
            schedule([in_an_hour()] * WARM_UP)
            due = self.due(self.lead(time.perf_counter() - begun))
            schedule(due)
            self.in_time(due)
            runs.wait(self.jobs, alive)
            return self.judged(due, runs)

    def lead(self, rehearsal: float) -> float:
        """In how many seconds the first may be due, where WARM_UP were scheduled in so many."""
        return 1.0 + 1.5 * rehearsal / WARM_UP * self.jobs

    def due(self, lead: float) -> list[datetime]:
        """The due times, the first of them in `lead` seconds."""
        first = datetime.now(UTC) + timedelta(seconds=lead)
        return [first + timedelta(seconds=number * self.spread / self.jobs) for number in range(self.jobs)]

    def in_time(self, due: list[datetime]) -> None:
        """Raise RuntimeError if the first is due already."""
        if datetime.now(UTC) > due[0]:
            raise RuntimeError(f"the first of {self.jobs} jobs was due before all were scheduled")

    def judged(self, due: list[datetime], runs: Runs) -> Rates:
        """Milliseconds between due time and start: `p50`, `p99`, `last` (after the last due time) and `earliest`."""
        first = runs.first_starts()
        lags = sorted((first[number] - at.timestamp()) * 1000 for number, at in enumerate(due))
        last = (max(first.values()) - due[-1].timestamp()) * 1000
        return {
            "p50": lags[len(lags) // 2],
            "p99": lags[int(len(lags) * 0.99)],
            "last": last,
            "earliest": lags[0],
        }


class Peer(Protocol):
    """One module of this package.

    `measure` gives rates per second, under the keys among these that the peer has:
    `schedule`: single calls by one client, each for a job due in an hour; `schedule_many`: the same by its bulk call;
    `cancel`: single calls for jobs not yet due; `drain`: starts of jobs already due, by one worker.
    `schedule_many` comes last, for then the jobs to drain are all that waits.
    """

    NAME: str

    def missing(self) -> str | None:
        """Why it cannot run here and how to get what it needs; None: it can."""

    def measure(self, servers: Servers, jobs: int) -> Rates:
        """Rates per second, each over `jobs` jobs."""

    def lags(self, servers: Servers, plan: Plan) -> Rates:
        """What `Plan.judged` gives, under one worker that was there before the jobs were scheduled."""


def lacks(package: str, below: str | None = None, above: str | None = None) -> str | None:
    """Why the installed `package` does not do: absent, or its major version is not in [above, below)."""
    wanted = package + ",".join(([f">={above}"] if above else []) + ([f"<{below}"] if below else []))
    try:
        found = version(package)
    except PackageNotFoundError:
        return f"{package} is not installed: pip install '{wanted}' (the dependency group `bench` holds the peers)"
    major = int(found.split(".")[0])
    if (below and major >= int(below)) or (above and major < int(above.split(".")[0])):
        return f"{package} {found} is installed: pip install '{wanted}' in an environment of its own"
    return None


def in_an_hour() -> datetime:
    """When the jobs are due that must not run during the measurement."""
    return datetime.now(UTC) + timedelta(hours=1)


def rate_of(call: Callable[[int], object], jobs: int) -> float:
    """Calls per second: `call(0)` … `call(jobs - 1)`, one after the other."""
    start = time.perf_counter()
    for number in range(jobs):
        call(number)
    return jobs / (time.perf_counter() - start)


def rate_of_bulk(call: Callable[[], object], jobs: int) -> float:
    """Jobs per second by one call for all of them."""
    return rate_of(lambda _: call(), 1) * jobs


def note_run(number: int) -> None:
    """The job's whole work: one line with its number and the time; whole lines, from any number of processes."""
    file = os.open(os.environ[RUNS], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(file, b"%d %.6f\n" % (number, time.time()))
    finally:
        os.close(file)


class Runs:
    """The runs that worker processes noted."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "runs"
        self.path.touch()

    def first_starts(self) -> dict[int, float]:
        """When each job first started."""
        first: dict[int, float] = {}
        for line in self.path.read_text().split("\n")[:-1]:  # the last is none, or half of one that is being written
            number, at = line.split()
            first.setdefault(int(number), float(at))
        return first

    def starts(self) -> list[float]:
        """When each job first started, in order."""
        return sorted(self.first_starts().values())

    def drained(self, jobs: int, alive: Callable[[], bool] = lambda: True) -> float:
        """Starts per second between the 5th and the 95th percentile, so that neither start-up nor tail counts.

        At DRAIN_SECONDS the rate of what ran until then is taken. TimeoutError: nothing more ran for QUIET_SECONDS.
        """
        self._watch(jobs, alive)
        starts = self.starts()
        low, high = int(len(starts) * 0.05), int(len(starts) * 0.95)
        return (high - low) / (starts[high] - starts[low])

    def wait(self, jobs: int, alive: Callable[[], bool] = lambda: True) -> None:
        """Wait until all of them ran; TimeoutError."""
        if (count := self._watch(jobs, alive)) < jobs:
            raise TimeoutError(f"only {count} of {jobs} due jobs ran within {DRAIN_SECONDS:.0f} s")

    def _watch(self, jobs: int, alive: Callable[[], bool]) -> int:
        begin = last = time.monotonic()
        count = 0
        while count < jobs and time.monotonic() - begin < DRAIN_SECONDS:
            time.sleep(0.1)
            if (now := len(self.starts())) > count:
                count, last = now, time.monotonic()
            if not alive():
                raise RuntimeError(f"a worker's process ended after {count} of {jobs} jobs")
            if time.monotonic() - last > QUIET_SECONDS:
                raise TimeoutError(f"only {count} of {jobs} due jobs ran; nothing more for {QUIET_SECONDS:.0f} s")
        return count


@contextmanager
def directory_of_runs() -> Iterator[Runs]:
    """A new list of runs; this process and those it starts note into it."""
    with tempfile.TemporaryDirectory(prefix="peers-") as directory:
        runs = Runs(Path(directory))
        os.environ[RUNS] = str(runs.path)
        yield runs


def drain_by(commands: list[list[str]], jobs: int, runs: Runs) -> float:
    """Starts per second while `python COMMAND` runs for each of the commands, until all the due jobs ran."""
    with _running(commands, runs) as alive:
        return runs.drained(jobs, alive)


@contextmanager
def _running(commands: list[list[str]], runs: Runs) -> Iterator[Callable[[], bool]]:
    """`python COMMAND` for each of the commands, as long as the block lasts; tells whether all of them live."""
    log = runs.path.with_name("log")
    processes: list[subprocess.Popen[bytes]] = []
    try:
        with log.open("wb") as output:
            for command in commands:
                argv = [sys.executable, *command]
                options = {"C_FORCE_ROOT": "1", **os.environ}
                processes.append(
                    subprocess.Popen(
                        argv, cwd=ROOT, stdout=output, stderr=output, stdin=subprocess.DEVNULL, env=options,
                        start_new_session=True,
                    )
                )  # fmt: skip
        yield lambda: all(process.poll() is None for process in processes)
    except (RuntimeError, TimeoutError):
        sys.stderr.write(log.read_text(errors="replace")[-4000:] + "\n")
        raise
    finally:
        for process in processes:
            _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(10)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # its session is its own: what it forked ends with it
    process.wait(10)


@contextmanager
def fresh_database(url: str, name: str) -> Iterator[str]:
    """The address of a new empty database on the server of `url`; it is dropped afterwards."""
    engine = sa.create_engine(url, isolation_level="AUTOCOMMIT")
    quoted = engine.dialect.identifier_preparer.quote(name)
    drop = sa.text(f"DROP DATABASE IF EXISTS {quoted} WITH (FORCE)")
    try:
        with engine.connect() as connection:
            connection.execute(drop)
            connection.execute(sa.text(f"CREATE DATABASE {quoted}"))
        yield sa.make_url(url).set(database=name).render_as_string(hide_password=False)
        with engine.connect() as connection:
            connection.execute(drop)
    finally:
        engine.dispose()
