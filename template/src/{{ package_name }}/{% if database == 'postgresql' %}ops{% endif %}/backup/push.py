"""Sends the metrics of `status` to the collector: a command ends before anybody could scrape it."""

import logging

from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, MetricExportResult
from opentelemetry.sdk.resources import Resource

from ...platform.telemetry.settings import Settings
from .errors import BackupError


def push(settings: Settings, metrics: dict[str, float], service: str) -> None:
    """Send all metrics at once; nothing happens without a collector.

    Args:
        settings: Of the room `telemetry`.
        metrics: Values by name.
        service: The name of the service, as the label `service`.

    Raises:
        BackupError: The collector does not accept them.
    """
    if not settings.sends("metrics"):
        return
    logging.getLogger("opentelemetry").addHandler(logging.NullHandler())  # the one line below says it
    reader = InMemoryMetricReader()
    name = settings.otel_service_name or service
    resource = Resource.create({"service.name": name, "deployment.environment.name": settings.environment})
    meter = MeterProvider([reader], resource, shutdown_on_exit=False).get_meter(__name__)
    for metric, value in metrics.items():
        meter.create_gauge(metric).set(value, {"service": service})
    data, options = reader.get_metrics_data(), settings.options("metrics")
    if data and OTLPMetricExporter(**options).export(data) is not MetricExportResult.SUCCESS:
        raise BackupError(f"the collector at {options['endpoint']} does not accept the metrics: check it")
