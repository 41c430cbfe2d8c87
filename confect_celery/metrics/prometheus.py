"""Metrics for Prometheus: `pip install confect-celery[prometheus]`.

A prefork worker is several processes: with `PROMETHEUS_MULTIPROC_DIR` in the environment they keep their numbers in
files there, and any process of the host serves the sum.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram, start_http_server
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from confect_celery.metrics.instruments import INSTRUMENTS, Instrument

__all__ = ["PrometheusMetrics", "exposed"]


def exposed() -> CollectorRegistry:
    """The registry to serve: of all processes with `PROMETHEUS_MULTIPROC_DIR`, else of this one."""
    if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
        return REGISTRY
    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return registry


class PrometheusMetrics:
    """`Confect(app, metrics=PrometheusMetrics())`: metrics named `confect_…`, in prometheus-client's registry.

    Make one a process, before the worker forks. `names=False` leaves the label `name` empty, for shops of very many
    functions.
    """

    def __init__(self, registry: CollectorRegistry = REGISTRY, *, names: bool = True) -> None:
        self._names = names
        self._made: dict[str, Any] = {it.name: _make(it, registry) for it in INSTRUMENTS.values()}

    def count(self, name: str, labels: Mapping[str, str], by: int = 1) -> None:
        """Add to the counter."""
        self._of(name, labels).inc(by)

    def observe(self, name: str, labels: Mapping[str, str], value: float) -> None:
        """Put a value into the histogram."""
        self._of(name, labels).observe(value)

    def set(self, name: str, value: float) -> None:
        """Set the gauge."""
        self._made[name].set(value)

    def close(self) -> None:
        """The gauges of this process go with it; its counts stay."""
        if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
            mark_process_dead(os.getpid())  # type: ignore[no-untyped-call]

    def serve(self, port: int, address: str = "127.0.0.1") -> None:
        """Serve `/metrics` on a thread of this process: from Celery's `worker_ready`, when the pool has forked."""
        start_http_server(port, address, registry=exposed())

    def _of(self, name: str, labels: Mapping[str, str]) -> Any:
        if not labels:
            return self._made[name]
        if not self._names and "name" in labels:
            labels = {**labels, "name": ""}
        return self._made[name].labels(**labels)


def _make(it: Instrument, registry: CollectorRegistry) -> Counter | Gauge | Histogram:
    name = "_".join(filter(None, ("confect", it.name, it.unit)))
    if it.type == "counter":
        return Counter(name, it.help, it.labels, registry=registry)
    if it.type == "histogram":
        return Histogram(name, it.help, it.labels, registry=registry, buckets=it.buckets)
    if it.across == "max":
        return Gauge(name, it.help, it.labels, registry=registry, multiprocess_mode="livemax")
    return Gauge(name, it.help, it.labels, registry=registry, multiprocess_mode="livesum")
