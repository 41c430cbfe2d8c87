"""What was measured, and what follows from it: medians, spreads, ratios, goals met or missed; kept as JSON."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

__all__ = ["Goal", "Report", "Series", "Verdict", "percentile"]


def percentile(samples: Sequence[float], share: float) -> float:
    """The value below which `share` (0 to 1) of the samples lie, interpolated; raises ValueError for none."""
    if not samples:
        raise ValueError("no samples")
    ordered = sorted(samples)
    place = (len(ordered) - 1) * share
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


@dataclass
class Series:
    """One line of a scenario: a sample for each round, in the order they were taken."""

    scenario: str
    line: str
    unit: str
    samples: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        return statistics.median(self.samples)

    @property
    def spread(self) -> tuple[float, float]:
        """The least and the greatest sample."""
        return min(self.samples), max(self.samples)


@dataclass(frozen=True)
class Goal:
    """`line` is at least or at most `bound`: by itself, or as a ratio to the line `beside` of the same run."""

    scenario: str
    line: str
    bound: float
    at_least: bool = True
    beside: str | None = None
    apart: bool = False
    """The difference of the two lines is held to the bound, not their ratio."""

    @property
    def text(self) -> str:
        sign = ">=" if self.at_least else "<="
        if self.beside is None:
            return f"{sign} {self.bound:,g}"
        return f"within {self.bound:,g} of {self.beside}" if self.apart else f"{sign} {self.bound:g}x {self.beside}"


@dataclass(frozen=True)
class Verdict:
    """What became of a goal; `value` is None when one of its lines was not measured."""

    goal: Goal
    value: float | None

    @property
    def met(self) -> bool | None:
        if self.value is None:
            return None
        return self.value >= self.goal.bound if self.goal.at_least else self.value <= self.goal.bound


@dataclass
class Report:
    """One run. `about` says on what machine, with what versions, by which command, of which commit."""

    about: dict[str, Any] = field(default_factory=dict)
    series: list[Series] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    goals: list[Goal] = field(default_factory=list)

    def add(self, scenario: str, line: str, unit: str, sample: float) -> None:
        """One sample more."""
        found = self.find(scenario, line)
        if found is None:
            found = Series(scenario, line, unit)
            self.series.append(found)
        found.samples.append(sample)

    def skip(self, what: str, why: str) -> None:
        """Say once that something was not measured."""
        text = f"{what}: {why}"
        if text not in self.skipped:
            self.skipped.append(text)

    def find(self, scenario: str, line: str) -> Series | None:
        return next((each for each in self.series if (each.scenario, each.line) == (scenario, line)), None)

    def verdict(self, goal: Goal) -> Verdict:
        """Hold the goal against the samples. A ratio is the median of the rounds' own ratios: the machine drifts."""
        ours = self.find(goal.scenario, goal.line)
        if ours is None:
            return Verdict(goal, None)
        if goal.beside is None:
            return Verdict(goal, ours.median)
        theirs = self.find(goal.scenario, goal.beside)
        if theirs is None:
            return Verdict(goal, None)
        if goal.apart:
            return Verdict(goal, abs(ours.median - theirs.median))
        if len(ours.samples) != len(theirs.samples):
            return Verdict(goal, ours.median / theirs.median)
        return Verdict(goal, statistics.median(a / b for a, b in zip(ours.samples, theirs.samples, strict=True)))

    def verdicts(self) -> list[Verdict]:
        return [self.verdict(goal) for goal in self.goals]

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1)

    @classmethod
    def from_json(cls, text: str) -> Report:
        """What `to_json` gave."""
        raw = json.loads(text)
        series, goals = [Series(**each) for each in raw["series"]], [Goal(**each) for each in raw["goals"]]
        return cls(raw["about"], series, raw["skipped"], goals)

    def save(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self.to_json() + "\n")

    def show(self, console: Console) -> None:
        """Print a table of the lines, one of the goals, and what was skipped."""
        table = Table("scenario", "line", "median", "min-max", "unit", "n", title="Measured")
        for each in self.series:
            low, high = each.spread
            spread = f"{_figure(low)}-{_figure(high)}"
            table.add_row(each.scenario, each.line, _figure(each.median), spread, each.unit, str(len(each.samples)))
        console.print(table)
        if self.goals:
            console.print(self._goals())
        for server, said in self.about.get("durability", {}).items():
            console.print(f"durability: {server}: {said}", markup=False, highlight=False)
        took = ", ".join(f"{name} {seconds:,.0f}" for name, seconds in self.about.get("seconds", {}).items())
        if took:
            console.print(f"seconds: {took}", markup=False, highlight=False)
        for text in self.skipped:
            console.print(f"skipped: {text}", markup=False)

    def _goals(self) -> Table:
        table = Table("scenario", "line", "goal", "got", "", title="Goals")
        for verdict in self.verdicts():
            goal = verdict.goal
            if verdict.value is None:
                table.add_row(goal.scenario, goal.line, goal.text, "-", "not measured")
                continue
            ratio = "x" if goal.beside and not goal.apart else ""
            word = "[green]met[/]" if verdict.met else "[red]missed[/]"
            table.add_row(goal.scenario, goal.line, goal.text, _figure(verdict.value) + ratio, word)
        return table


def _figure(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
