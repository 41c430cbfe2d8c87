"""What the shop's processes show of themselves, by their environment.

TEST_METRICS_PORT (Prometheus, served by the worker's main process), TEST_METRICS_FILES (a directory for OpenTelemetry's
metrics of each process), TEST_SPANS (one for their spans), TEST_INSTRUMENT (Celery is instrumented: "pool", in the
pool's processes, or "all"), TEST_EVENTS_LOG (the level of log events).
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

from celery import signals
from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import ConsoleMetricExporter, PeriodicExportingMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor

from confect_celery import Confect
from confect_celery.metrics.opentelemetry import OpenTelemetryMetrics


def provider(directory: Path) -> TracerProvider:
    """A provider of this process's own, which writes each span into a file of its own."""
    it = TracerProvider(shutdown_on_exit=False)
    file = (directory / f"{os.getpid()}.spans").open("a")
    it.add_span_processor(
        SimpleSpanProcessor(ConsoleSpanExporter(out=file, formatter=lambda s: s.to_json(None) + "\n"))
    )
    return it


def _trace(**_: Any) -> None:
    trace.set_tracer_provider(provider(Path(os.environ["TEST_SPANS"])))
    if "TEST_INSTRUMENT" in os.environ:
        from opentelemetry.instrumentation.celery import CeleryInstrumentor

        CeleryInstrumentor().instrument()


def _meters() -> MeterProvider:
    """Exports nothing before it is flushed or shut down."""
    file = (Path(os.environ["TEST_METRICS_FILES"]) / f"{os.getpid()}.json").open("a")
    exporter = ConsoleMetricExporter(out=file, formatter=lambda data: data.to_json(None) + "\n")
    return MeterProvider([PeriodicExportingMetricReader(exporter, export_interval_millis=3_600_000)])


def install(confect: Confect) -> None:
    """Do what the environment says."""
    if "TEST_EVENTS_LOG" in os.environ:
        logging.getLogger("confect_celery.events").setLevel(os.environ["TEST_EVENTS_LOG"])
    if "TEST_METRICS_PORT" in os.environ:
        from confect_celery.metrics.prometheus import PrometheusMetrics

        metrics = confect.metrics = PrometheusMetrics()
        port = int(os.environ["TEST_METRICS_PORT"])
        signals.worker_ready.connect(lambda **_: metrics.serve(port), weak=False)
    if "TEST_SPANS" in os.environ:
        # What a provider keeps does not outlive a fork, so the pool's processes make theirs.
        everywhere = os.environ.get("TEST_INSTRUMENT") == "all"
        (signals.worker_init if everywhere else signals.worker_process_init).connect(_trace, weak=False)
    if "TEST_METRICS_FILES" in os.environ:
        confect.metrics = OpenTelemetryMetrics(_meters)
