"""The OTLP exporter of metrics, which adds the histogram of request durations to each export."""

import os
from typing import Any

from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.sdk.environment_variables import OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE
from opentelemetry.sdk.metrics.export import MetricExportResult, MetricsData

from .durations import Durations


class DurationsExporter(OTLPMetricExporter):
    """Sends request durations with the SDK's own metrics; there is always one, `process.cpu.time`.

    Args:
        durations: The histogram.
        arguments: Of the SDK's exporter.
    """

    def __init__(self, durations: Durations, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.durations = durations
        # https://opentelemetry.io/docs/specs/otel/metrics/sdk_exporters/otlp/#additional-environment-variable-configuration
        preference = os.environ.get(OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE, "").strip().upper()
        self.delta = preference in ("DELTA", "LOWMEMORY")

    def export(
        self, metrics_data: MetricsData, timeout_millis: float | None = None, **kwargs: Any
    ) -> MetricExportResult:
        """Send both in one request."""
        return super().export(self.durations.add_to(metrics_data, self.delta), timeout_millis, **kwargs)
