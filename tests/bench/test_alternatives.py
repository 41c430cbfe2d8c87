"""What measures the peers must itself be right: real servers, real workers, few jobs."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version

import pytest

from bench.alternatives import run_all
from bench.alternatives.interface import RUNS, Servers, directory_of_runs, lacks, note_run
from bench.record import Starts
from tests.support.databases import Databases
from tests.support.processes import Valkey

JOBS = 40


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    databases, valkey = Databases(), Valkey(tmp_path_factory.mktemp("broker"))
    valkey.start()
    try:
        yield Servers(databases.server("postgresql").url(), f"redis://127.0.0.1:{valkey.port}/1")
    finally:
        databases.stop()
        valkey.end()


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("redbeat", {"schedule", "cancel", "drain"}),
        ("django_celery_beat", {"schedule", "schedule_many", "cancel", "drain"}),
    ],
)
def test_a_peer_gives_rates_for_what_it_has(servers: Servers, name: str, keys: set[str]) -> None:
    rates = run_all(servers, JOBS, [name])[name]
    assert isinstance(rates, dict), rates
    assert set(rates) == keys
    assert all(rate > 0 for rate in rates.values()), rates


def test_a_peer_that_is_not_installed_says_how_to_get_it(servers: Servers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PEERS_PYTHON_APSCHEDULER4", sys.executable)
    answer = run_all(servers, JOBS, ["apscheduler4"])["apscheduler4"]
    assert isinstance(answer, str)
    assert "pip install 'apscheduler>=4" in answer
    assert "PEERS_PYTHON_APSCHEDULER4" in answer


def test_a_peer_that_breaks_does_not_end_the_others(servers: Servers, monkeypatch: pytest.MonkeyPatch) -> None:
    false = shutil.which("false")
    assert false is not None
    monkeypatch.setenv("PEERS_PYTHON_DBOS", false)
    assert run_all(servers, JOBS, ["dbos"]) == {"dbos": "failed: no output"}


def test_a_job_that_runs_twice_counts_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(RUNS, "")  # what the block below sets goes with the test
    with directory_of_runs() as runs:
        for number in (1, 2, 1, 3):
            note_run(number)
        assert len(runs.starts()) == 3


@pytest.mark.parametrize("half", ["4", "4 17", "4 1764490000.12345"])
def test_half_a_line_is_not_read_yet(monkeypatch: pytest.MonkeyPatch, half: str) -> None:
    monkeypatch.setenv(RUNS, "")
    with directory_of_runs() as runs:
        note_run(3)
        with runs.path.open("a") as file:
            file.write(half)
        starts = Starts(runs.path)
        assert len(runs.starts()) == len(starts.all()) == starts.count() == 1


def test_a_package_of_another_major_version_does_not_do() -> None:
    found = version("celery")
    assert lacks("celery") is None
    assert lacks("celery", below="99") is None
    assert (
        lacks("celery", above="99")
        == f"celery {found} is installed: pip install 'celery>=99' in an environment of its own"
    )
    with pytest.raises(PackageNotFoundError):
        version("no-such-package-here")
    assert "is not installed" in (lacks("no-such-package-here") or "")
