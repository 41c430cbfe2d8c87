"""Metrics for OpenTelemetry: `pip install confect-celery[opentelemetry]`.

Exporters keep threads and sockets, which no fork carries over: a provider belongs to one process. Give a function that
makes one, and each process of a worker calls it when it first counts something.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from typing import Any

from opentelemetry.metrics import Meter, MeterProvider, get_meter

from confect_celery.metrics.instruments import INSTRUMENTS

__all__ = ["OpenTelemetryMetrics"]


class OpenTelemetryMetrics:
    """`Confect(app, metrics=OpenTelemetryMetrics(make_provider))`: instruments named `confect.…`.

    Without `make_provider` each process uses the global MeterProvider that it finds when it first counts something.
    """

    def __init__(self, make_provider: Callable[[], MeterProvider] | None = None) -> None:
        self._make_provider = make_provider
        self._lock = threading.Lock()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._renew_lock)
        self._of_process: tuple[int, MeterProvider | None, dict[str, Any]] = (-1, None, {})

    def count(self, name: str, labels: Mapping[str, str], by: int = 1) -> None:
        """Add to the counter."""
        self._instruments()[name].add(by, labels)

    def observe(self, name: str, labels: Mapping[str, str], value: float) -> None:
        """Put a value into the histogram."""
        self._instruments()[name].record(value, labels)

    def set(self, name: str, value: float) -> None:
        """Set the gauge."""
        self._instruments()[name].set(value)

    def close(self) -> None:
        """Export what this process's own provider still holds."""
        pid, provider, _ = self._of_process
        flush: Callable[[], object] | None = getattr(provider, "force_flush", None)
        if pid == os.getpid() and flush is not None:
            flush()

    def _instruments(self) -> dict[str, Any]:
        pid, _, made = self._of_process
        if pid == os.getpid():
            return made
        with self._lock:
            return self._of_process[2] if self._of_process[0] == os.getpid() else self._begin()

    def _renew_lock(self) -> None:
        self._lock = threading.Lock()  # another thread may have held it at the fork

    def _begin(self) -> dict[str, Any]:
        provider = self._make_provider() if self._make_provider is not None else None
        meter = provider.get_meter("confect_celery") if provider is not None else get_meter("confect_celery")
        made = {it.name: _make(meter, it.name) for it in INSTRUMENTS.values()}
        self._of_process = (os.getpid(), provider, made)
        return made


def _make(meter: Meter, name: str) -> Any:
    it = INSTRUMENTS[name]
    full, unit = f"confect.{it.name}", "s" if it.unit else "1"
    if it.type == "counter":
        return meter.create_counter(full, unit, it.help)
    if it.type == "gauge":
        return meter.create_gauge(full, unit, it.help)
    return meter.create_histogram(full, unit, it.help, explicit_bucket_boundaries_advisory=it.buckets)
