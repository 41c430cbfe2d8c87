"""What happened, as numbers and as log lines. Exporters are in `metrics.prometheus` and `metrics.opentelemetry`."""

from confect_celery.metrics.events import Events
from confect_celery.metrics.instruments import INSTRUMENTS, Instrument, Metrics

__all__ = ["INSTRUMENTS", "Events", "Instrument", "Metrics"]
