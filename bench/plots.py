"""A picture of each scenario beside the JSON: each line's median as a bar, its least and greatest as whiskers."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from bench.report import Report, Series

__all__ = ["draw"]

_BAR_INCHES = 0.28
_HEAD_INCHES = 1.2


def draw(report: Report, stem: Path) -> list[Path]:
    """One PNG for each scenario and unit, named `<stem>-<scenario>-<unit>.png`; which were drawn.

    Raises ImportError where matplotlib is not installed; the dependency group `bench` has it.
    """
    import matplotlib as mpl

    mpl.use("agg")
    groups: dict[tuple[str, str], list[Series]] = {}
    for each in report.series:
        groups.setdefault((each.scenario, each.unit), []).append(each)
    about = f"{report.about.get('commit', '')} {report.about.get('started', '')}".strip()
    return [_draw(series, f"{scenario}, {unit}", about, _path(stem, scenario, unit))
            for (scenario, unit), series in groups.items()]  # fmt: skip


def _path(stem: Path, scenario: str, unit: str) -> Path:
    word = re.sub(r"\W+", "-", unit).strip("-") or "share"
    return stem.with_name(f"{stem.name}-{scenario}-{word}.png")


def _draw(series: list[Series], title: str, about: str, path: Path) -> Path:
    from matplotlib import pyplot

    figure: Any
    axes: Any
    figure, axes = pyplot.subplots(figsize=(9, _HEAD_INCHES + _BAR_INCHES * len(series)), layout="constrained")
    medians = [each.median for each in series]
    whiskers = [[m - each.spread[0] for m, each in zip(medians, series, strict=True)],
                [each.spread[1] - m for m, each in zip(medians, series, strict=True)]]  # fmt: skip
    colours = ["tab:blue" if each.line.startswith("ours") else "tab:gray" for each in series]
    bars = axes.barh([each.line for each in series], medians, xerr=whiskers, color=colours)
    axes.bar_label(bars, fmt="{:,.4g}", padding=4)
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.set_title(title)
    axes.set_xlabel(about)
    figure.savefig(path)
    pyplot.close(figure)
    return path
