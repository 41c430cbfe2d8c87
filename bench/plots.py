"""A picture of each scenario beside the JSON: each line's median as a bar, its least and greatest as whiskers.

Ours, native Celery, peers and limits have a colour each. Where figures differ a hundredfold the scale is logarithmic.
"""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any

from bench import alternatives
from bench.report import Report, Series

__all__ = ["draw"]

_BAR_INCHES = 0.28
_HEAD_INCHES = 1.6
_WIDE = 100
_COLOURS = {"ours": "tab:blue", "native Celery": "tab:orange", "peers": "tab:gray", "limits": "lightsteelblue"}


def _kind(line: str) -> str:
    if line.startswith("celery"):
        return "native Celery"
    if line.startswith("limit"):
        return "limits"
    return "peers" if line.startswith(alternatives.PEERS) else "ours"


def _label(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


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
    kinds = [_kind(each.line) for each in series]
    bars = axes.barh([each.line for each in series], medians, xerr=whiskers, color=[_COLOURS[kind] for kind in kinds])
    axes.bar_label(bars, labels=[_label(each) for each in medians], padding=4)
    axes.invert_yaxis()
    least, most = min(medians), max(medians)
    nearest = min((abs(each) for each in medians if each), default=1)
    if most > nearest * _WIDE:
        if least > 0:
            axes.set_xscale("log")
        else:  # what starts too early is on the other side of nought
            axes.set_xscale("symlog", linthresh=nearest)
        axes.set_xlim(least / 3 if least > 0 else least * 20, most * (4 if least > 0 else 20))
        axes.grid(axis="x", alpha=0.3)
    else:
        axes.margins(x=0.15)
    patches = importlib.import_module("matplotlib.patches")
    shown = [patches.Patch(color=colour, label=kind) for kind, colour in _COLOURS.items() if kind in kinds]
    if len(shown) > 1:
        figure.legend(handles=shown, loc="outside lower right", ncols=len(shown), frameon=False)
    axes.set_title(title)
    axes.set_xlabel(about)
    figure.savefig(path)
    pyplot.close(figure)
    return path
