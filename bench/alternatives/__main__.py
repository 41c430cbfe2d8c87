"""`python -m bench.alternatives NAME --postgres URL --redis URL --jobs N`: one peer's rates as one line of JSON."""

from __future__ import annotations

import argparse
import importlib
import json
import signal
import sys
from typing import cast

from bench.alternatives import PEERS
from bench.alternatives.interface import Peer, Plan, Servers


def main() -> None:
    """Measure the peer, or tell why it cannot run."""
    parser = argparse.ArgumentParser(prog="python -m bench.alternatives", description=__doc__)
    parser.add_argument("name", choices=PEERS)
    parser.add_argument("--postgres", required=True, help="an empty database: postgresql+psycopg://user@host/name")
    parser.add_argument("--redis", required=True, help="redis://host:port/number")
    parser.add_argument("--jobs", type=int, default=1000)
    parser.add_argument(
        "--spread", type=float, help="measure lags instead: all are due within so many seconds, or at 0"
    )
    given = parser.parse_args()
    if given.jobs < 20:
        parser.error("--jobs: at least 20, else there is no rate to take")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the workers that it started end with it
    peer = cast("Peer", importlib.import_module(f"bench.alternatives.{given.name}"))
    answer: dict[str, object] = {"peer": peer.NAME, "jobs": given.jobs}
    reason = peer.missing()
    if reason is not None:
        answer["skipped"] = reason
    else:
        servers = Servers(given.postgres, given.redis)
        if given.spread is None:
            rates = peer.measure(servers, given.jobs)
        else:
            rates = peer.lags(servers, Plan(given.jobs, given.spread))
        answer["rates"] = {key: round(rate, 1) for key, rate in rates.items()}
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
