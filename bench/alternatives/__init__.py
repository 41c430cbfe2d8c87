"""What users would pick instead of confect_celery, measured on the same servers.

Each peer is one module with the names of `bench.alternatives.interface.Peer` and runs in a process of its own:
`python -m bench.alternatives procrastinate --postgres URL --redis URL --jobs 1000` prints one line of JSON.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable

from bench.alternatives.interface import ROOT, Rates, Servers, fresh_database

__all__ = ["PEERS", "Servers", "run_all"]

PEERS = ("procrastinate", "apscheduler3", "apscheduler4", "dbos", "redbeat", "django_celery_beat")
LIMIT_SECONDS = 600
END_SECONDS = 30


def run_all(
    servers: Servers, jobs: int, names: Iterable[str] = PEERS, spread: float | None = None
) -> dict[str, Rates | str]:
    """The peers' rates per second, one peer after the other; a text tells why a peer was skipped or failed.

    With `spread` it is how late they start jobs that are due within so many seconds: `interface.Plan.judged`.

    Each peer gets a new database beside `servers.postgres_url` (its user must be allowed to create one).
    APScheduler 4 cannot be installed beside APScheduler 3: `PEERS_PYTHON_APSCHEDULER4` names the interpreter of
    another environment for it, and `PEERS_PYTHON_<NAME>` does so for any other peer.
    """
    more = [] if spread is None else ["--spread", str(spread)]
    return {name: _run(name, servers, jobs, more) for name in names}


def _run(name: str, servers: Servers, jobs: int, more: list[str]) -> Rates | str:
    python = os.environ.get(f"PEERS_PYTHON_{name.upper()}") or sys.executable
    with fresh_database(servers.postgres_url, f"peer_{name}") as url:
        argv = [
            python,
            "-m",
            "bench.alternatives",
            name,
            "--postgres",
            url,
            "--redis",
            servers.redis_url,
            "--jobs",
            str(jobs),
            *more,
        ]
        peer = subprocess.Popen(
            argv, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL
        )
        try:
            said, complaints = peer.communicate(timeout=LIMIT_SECONDS)
        except subprocess.TimeoutExpired:
            return f"failed: not done after {LIMIT_SECONDS} s"
        finally:
            _end(peer)
    lines = said.splitlines()
    if peer.returncode != 0 or not lines:
        return "failed: " + (complaints.strip().splitlines() or ["no output"])[-1]
    answer = json.loads(lines[-1])
    return str(answer["skipped"]) if "skipped" in answer else dict(answer["rates"])


def _end(peer: subprocess.Popen[str]) -> None:
    """Its own workers are in sessions of their own: it must be let end them itself."""
    peer.terminate()
    try:
        peer.communicate(timeout=END_SECONDS)
    except subprocess.TimeoutExpired:
        peer.kill()
        peer.communicate()
