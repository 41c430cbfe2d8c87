"""What the shop's processes show of themselves, by their environment.

TEST_METRICS_PORT (Prometheus, served by the worker's main process), TEST_SPANS (a directory for the spans of each
process), TEST_INSTRUMENT (Celery is instrumented in the pool's processes), TEST_EVENTS_LOG (the level of log events).
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

from celery import signals
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor

from confect_celery import Confect


def provider(directory: Path) -> TracerProvider:
    """A provider of this process's own, which writes each span into a file of its own."""
    it = TracerProvider(shutdown_on_exit=False)
    file = (directory / f"{os.getpid()}.spans").open("a")
    it.add_span_processor(
        SimpleSpanProcessor(ConsoleSpanExporter(out=file, formatter=lambda s: s.to_json(None) + "\n"))
    )
    return it


def _trace(**_: Any) -> None:
    # In the pool's process: what a provider keeps does not outlive a fork.
    trace.set_tracer_provider(provider(Path(os.environ["TEST_SPANS"])))
    if "TEST_INSTRUMENT" in os.environ:
        from opentelemetry.instrumentation.celery import CeleryInstrumentor

        CeleryInstrumentor().instrument()


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
        signals.worker_process_init.connect(_trace, weak=False)
