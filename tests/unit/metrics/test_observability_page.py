"""docs/observability.md names every instrument and every event there is, and no other."""

from __future__ import annotations

import re
from pathlib import Path

from confect_celery.metrics import INSTRUMENTS, events

PAGE = (Path(__file__).parents[3] / "docs" / "observability.md").read_text()


def _first_cells(heading: str) -> list[str]:
    section = PAGE.split(f"## {heading}\n")[1].split("\n## ")[0]
    return re.findall(r"^\| `([a-z_]+)`", section, re.MULTILINE)


def test_the_metrics() -> None:
    named = ["_".join(filter(None, ("confect", it.name, it.unit))) for it in INSTRUMENTS.values()]
    suffixed = [
        name + ("_total" if it.type == "counter" else "") for name, it in zip(named, INSTRUMENTS.values(), strict=True)
    ]
    assert sorted(_first_cells("Metrics")) == sorted(suffixed)
    for it in INSTRUMENTS.values():
        [line] = [line for line in PAGE.splitlines() if line.startswith(f"| `confect_{it.name}")]
        assert all(f"`{label}`" in line for label in it.labels), line


def test_the_log_events() -> None:
    source = Path(events.__file__).read_text()
    told = set(re.findall(r'(?:_log|_say)\(\s*[^"]*?"([a-z_]+)"', source)) | {"published", "republished"}
    assert set(_first_cells("Log events")) == told
