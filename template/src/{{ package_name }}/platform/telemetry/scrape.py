"""Metrics for a Prometheus that scrapes: on a port of their own, never on the public one, from a thread of its own."""

import os
from collections.abc import Iterable

import structlog
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector

from .durations import BUCKETS, DESCRIPTION, Durations

LABELS = ("error_type", "http_request_method", "http_response_status_code", "http_route", "url_scheme")
BOUNDS = (*(str(bound) for bound in BUCKETS), "+Inf")


class DurationsCollector(Collector):
    """The histogram of request durations, as `prometheus_client` wants it; an empty label is none to Prometheus."""

    def __init__(self, durations: Durations) -> None:
        self.durations = durations

    def collect(self) -> Iterable[HistogramMetricFamily]:
        """Give all series; Prometheus counts each bucket with those below it."""
        family = HistogramMetricFamily("http_server_request_duration", DESCRIPTION, labels=LABELS, unit="seconds")
        for kind, series in list(self.durations.series.items()):
            total, buckets = 0, []
            for bound, count in zip(BOUNDS, series.counts, strict=True):
                total += count
                buckets.append((bound, total))
            labels = (kind.error, kind.method, str(kind.status), kind.route or "", kind.scheme)
            family.add_metric(labels, buckets, series.seconds)
        yield family


def serve(durations: Durations, host: str, port: int) -> PrometheusMetricReader:
    """Listen, and give the reader that the SDK's own instruments are read by."""
    log = structlog.get_logger("telemetry")
    registry = CollectorRegistry()
    reader = PrometheusMetricReader(scope_info_enabled=False, registry=registry)
    registry.register(DurationsCollector(durations))
    try:
        server, _ = start_http_server(port, host, registry)
        log.info("metrics", port=server.server_port)
    except OSError as error:  # the service serves without them; a second worker on this port is the usual reason
        reason = os.strerror(error.errno or 0)
        log.error("no metrics", port=port, reason=reason, advice="set METRICS_PORT to a free port")
    return reader
