"""The benchmark itself, by its own door and very small: what it prints and keeps must be there, and true."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import redis

from bench import servers
from bench.alternatives import run_all
from bench.alternatives.interface import Servers
from bench.report import Report
from tests.support.brokers import Brokers
from tests.support.databases import Databases
from tests.support.processes import ROOT

JOBS = 60


@pytest.mark.timeout(180)
def test_schedule_and_drain_are_measured_and_kept(tmp_path: Path) -> None:
    kept = tmp_path / "samples.json"
    argv = [sys.executable, "-m", "bench", "--quick", "--only", "schedule,drain", "--jobs", str(JOBS)]
    argv += ["--conf", "confect_batch=1", "--json", str(kept)]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=170, check=False)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-3000:]

    report = Report.from_json(kept.read_text())
    lines = {(each.scenario, each.line) for each in report.series}
    assert lines >= {
        ("schedule", "ours, one call, PostgreSQL"),
        ("schedule", "ours, one call, SQLite"),
        ("schedule", "ours, in an open transaction, PostgreSQL"),
        ("schedule", "ours, run_many, PostgreSQL"),
        ("schedule", "ours, cancel, PostgreSQL"),
        ("schedule", "celery apply_async(countdown), Redis"),
        ("schedule", "limit: psycopg COPY"),
        ("schedule", "limit: LPUSH, Redis"),
        ("drain", "celery delay(), redis"),
        ("drain", "ours-single, mutation, redis, postgresql"),
        ("drain", "ours-single, action, redis, postgresql"),
    }
    assert all(len(each.samples) == 1 and each.samples[0] > 0 for each in report.series)
    assert not any("broke off" in text for text in report.skipped)
    assert "fsync on" in report.about["durability"]["PostgreSQL"]
    assert report.about["durability"].keys() >= {"PostgreSQL", "SQLite", "Redis"}
    assert report.about["seconds"].keys() == {"servers", "schedule", "drain"}

    single = [goal for goal in report.goals if goal.line == "ours-single, mutation, redis, postgresql"]
    assert len(single) == 1
    (verdict,) = [report.verdict(goal) for goal in single]
    ours, native = (report.find("drain", line) for line in (single[0].line, "celery delay(), redis"))
    assert ours is not None and native is not None
    assert verdict.value == pytest.approx(ours.samples[0] / native.samples[0])
    assert f"{single[0].bound:g}x" in done.stdout and "durability: PostgreSQL" in done.stdout


def test_a_scenario_that_is_not_there_is_refused() -> None:
    argv = [sys.executable, "-m", "bench", "--only", "schedule,nothing"]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2 and "no scenario nothing; there are schedule, drain" in done.stderr


@pytest.mark.timeout(120)
@pytest.mark.parametrize("spread", [1.0, 0.0])
def test_how_late_a_peer_starts_its_jobs(databases: Databases, brokers: Brokers, spread: float) -> None:
    servers = Servers(databases.server("postgresql").url(), brokers.url("redis"))
    (lags,) = run_all(servers, 40, ["redbeat"], spread).values()
    assert isinstance(lags, dict), lags
    assert lags.keys() == {"p50", "p99", "last", "earliest"}
    assert lags["earliest"] <= lags["p50"] <= lags["p99"] < 10_000


def test_a_part_of_redis_that_comes_round_again_is_empty() -> None:
    with servers.Servers() as running:
        first = running.broker("redis")
        left = redis.Redis.from_url(first)
        left.set("a message", "of an earlier line")
        assert first in (running.broker("redis") for _ in range(256))
        assert left.dbsize() == 0
        left.close()
