"""Serves metrics for Prometheus to scrape, in a thread and on a port of their own: the public port never shows them."""

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
    """The histogram of request durations for `prometheus_client`; Prometheus ignores empty labels."""

    def __init__(self, durations: Durations) -> None:
        self.durations = durations

    def collect(self) -> Iterable[HistogramMetricFamily]:
        """Return all series; in Prometheus each bucket includes those below it."""
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
    """Start the server, and return the reader for the SDK's own instruments."""
    log = structlog.get_logger("telemetry")
    registry = CollectorRegistry()
    reader = PrometheusMetricReader(scope_info_enabled=False, registry=registry)
    registry.register(DurationsCollector(durations))
    try:
        server, _ = start_http_server(port, host, registry)
        log.info("metrics", port=server.server_port)
    except OSError as error:  # the service runs on without metrics; usually another worker has the port
        reason = os.strerror(error.errno or 0)
        log.error("no metrics", port=port, reason=reason, advice="set METRICS_PORT to a free port")
    return reader
