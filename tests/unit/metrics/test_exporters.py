"""Each exporter offers every instrument, under names that do not change."""

from __future__ import annotations

from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from prometheus_client import CollectorRegistry, generate_latest

from confect_celery.metrics import INSTRUMENTS, Metrics
from confect_celery.metrics.opentelemetry import OpenTelemetryMetrics
from confect_celery.metrics.prometheus import PrometheusMetrics


def tell_all(metrics: Metrics) -> None:
    """Use every instrument once."""
    for it in INSTRUMENTS.values():
        labels = dict.fromkeys(it.labels, "x")
        if it.type == "counter":
            metrics.count(it.name, labels, 2)
        elif it.type == "histogram":
            metrics.observe(it.name, labels, 0.3)
        else:
            metrics.set(it.name, 7.0)


@pytest.mark.parametrize("names", [True, False])
def test_prometheus(names: bool) -> None:
    registry = CollectorRegistry()
    metrics = PrometheusMetrics(registry, names=names)
    tell_all(metrics)
    told = generate_latest(registry).decode()

    name = "x" if names else ""
    assert f'confect_finished_total{{kind="x",name="{name}",state="x"}} 2.0' in told
    assert 'confect_lag_seconds_bucket{kind="x",le="0.5",queue="x"} 1.0' in told
    assert "confect_oldest_due_seconds 7.0" in told and "confect_outbox 7.0" in told
    for it in INSTRUMENTS.values():
        assert f"# TYPE confect_{it.name}" in told


def test_opentelemetry() -> None:
    made: list[InMemoryMetricReader] = []

    def make() -> MeterProvider:
        made.append(InMemoryMetricReader())
        return MeterProvider(metric_readers=[made[-1]], shutdown_on_exit=False)

    metrics = OpenTelemetryMetrics(make)
    assert made == [], "nothing is made before it is needed: a fork may come"
    tell_all(metrics)
    tell_all(metrics)
    metrics.close()
    [reader] = made
    data: Any = reader.get_metrics_data()
    told = {metric.name: metric for metric in data.resource_metrics[0].scope_metrics[0].metrics}

    assert set(told) == {f"confect.{name}" for name in INSTRUMENTS}
    assert told["confect.published"].data.data_points[0].value == 4
    assert told["confect.lag"].unit == "s" and told["confect.lag"].data.data_points[0].count == 2
    assert told["confect.lag"].data.data_points[0].explicit_bounds == INSTRUMENTS["lag"].buckets
    assert told["confect.outbox"].data.data_points[0].value == 7
