"""The arithmetic of the benchmarks' report."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from rich.console import Console

from bench.alternatives.interface import Plan, Runs
from bench.record import Starts
from bench.report import Goal, Report, percentile

FASTER = Goal("s", "ours", 2, beside="theirs")


def report(ours: list[float], theirs: list[float], *goals: Goal) -> Report:
    it = Report(about={"commit": "abc"}, goals=list(goals))
    for line, samples in (("ours", ours), ("theirs", theirs)):
        for sample in samples:
            it.add("s", line, "jobs/s", sample)
    return it


def test_a_percentile_is_interpolated() -> None:
    assert percentile([4, 1, 3, 2], 0.5) == 2.5
    assert (percentile([1, 2], 0), percentile([1, 2], 1), percentile([7], 0.99)) == (1, 2, 7)
    with pytest.raises(ValueError, match="no samples"):
        percentile([], 0.5)


def test_a_series_has_its_median_and_spread() -> None:
    ours = report([30, 10, 50], []).find("s", "ours")
    assert ours is not None and (ours.median, ours.spread) == (30, (10, 50))


def test_a_ratio_is_the_median_of_the_rounds_own_ratios() -> None:
    # 100/10, 20/20, 90/30: the medians' ratio would be 90/20
    assert report([100, 20, 90], [10, 20, 30]).verdict(FASTER).value == 3


def test_a_ratio_of_unequal_rounds_is_the_medians() -> None:
    assert report([100, 20, 90], [30]).verdict(FASTER).value == 3


@pytest.mark.parametrize(
    ("goal", "met"),
    [
        (Goal("s", "ours", 30), True),
        (Goal("s", "ours", 30.1), False),
        (Goal("s", "ours", 30, at_least=False), True),
        (Goal("s", "ours", 29.9, at_least=False), False),
        (Goal("s", "ours", 3, beside="theirs"), True),
        (Goal("s", "ours", 3, beside="theirs", at_least=False), True),
        (Goal("s", "ours", 3.1, beside="theirs"), False),
        (Goal("s", "ours", 20, beside="theirs", at_least=False, apart=True), True),
        (Goal("s", "theirs", 19, beside="ours", at_least=False, apart=True), False),
        (Goal("s", "ours", 3, beside="nobody"), None),
        (Goal("s", "nobody", 3), None),
    ],
)
def test_a_goal_is_met_missed_or_not_measured(goal: Goal, met: bool | None) -> None:
    assert report([30], [10]).verdict(goal).met is met


def test_a_report_survives_json() -> None:
    it = report([1.5, 2], [3], FASTER)
    it.skip("peer", "not installed")
    it.skip("peer", "not installed")
    assert it.skipped == ["peer: not installed"]
    assert Report.from_json(it.to_json()) == it


def test_what_was_skipped_or_missed_is_shown() -> None:
    it = report([30], [20], FASTER, Goal("s", "nobody", 1))
    it.skip("peer", "not installed")
    console = Console(record=True, width=120)
    it.show(console)
    text = console.export_text()
    assert "skipped: peer: not installed" in text and "missed" in text and "1.5x" in text and "not measured" in text


def test_how_safe_the_servers_are_and_how_long_it_took_is_shown() -> None:
    it = Report(about={"durability": {"PostgreSQL": "fsync on"}, "seconds": {"drain": 61.2, "lag": 7.0}})
    console = Console(record=True, width=120)
    it.show(console)
    text = console.export_text()
    assert "durability: PostgreSQL: fsync on" in text and "seconds: drain 61, lag 7" in text


def test_a_plan_spreads_due_times_evenly() -> None:
    before = datetime.now(UTC)
    due = Plan(4, 2.0).due(3.0)
    assert timedelta(seconds=3) <= due[0] - before < timedelta(seconds=4)
    assert [(at - due[0]).total_seconds() for at in due] == [0, 0.5, 1, 1.5]
    assert len(set(Plan(4, 0).due(3.0))) == 1


def test_a_plan_that_was_scheduled_too_late_is_refused() -> None:
    plan = Plan(2, 1.0)
    plan.in_time(plan.due(10))
    with pytest.raises(RuntimeError, match="due before all were scheduled"):
        plan.in_time(plan.due(-0.01))


def test_lags_are_of_each_job_s_first_start(tmp_path: Path) -> None:
    runs, plan = Runs(tmp_path), Plan(3, 3.0)
    due = [datetime.fromtimestamp(1000 + n, UTC) for n in range(3)]
    runs.path.write_text("0 1000.010\n1 1000.900\n2 1002.030\n0 1009.0\n")
    lags = plan.judged(due, runs)
    assert lags == {key: pytest.approx(ms) for key, ms in {"p50": 10, "p99": 30, "last": 30, "earliest": -100}.items()}


def test_starts_know_their_rate_and_doubles(tmp_path: Path) -> None:
    starts = Starts(tmp_path / "starts")
    starts.path.write_text("".join(f"{n} {100 + n / 10:.6f}\n" for n in range(101)))
    assert starts.rate() == pytest.approx(0.9 * 101 / 9)
    starts.once_each(101)
    with pytest.raises(AssertionError, match="101 starts of 101 tasks, 102"):
        starts.once_each(102)
