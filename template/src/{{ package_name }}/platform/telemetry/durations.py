"""The histogram of request durations, counted here because that takes 0.3 us per request instead of the SDK's 6 us.

Each export gets it in the SDK's public data model, so a collector sees no difference.
"""

import time
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

from opentelemetry.sdk.metrics import Exemplar
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Histogram,
    HistogramDataPoint,
    Metric,
    MetricsData,
    ScopeMetrics,
)
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

# https://opentelemetry.io/docs/specs/semconv/http/http-metrics/#metric-httpserverrequestduration
NAME, UNIT = "http.server.request.duration", "s"
DESCRIPTION = "Duration of HTTP server requests."
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)  # seconds
Attributes = Mapping[str, str | int]


class SeriesKey(NamedTuple):
    """The attributes that identify a series; an empty value is left out."""

    route: str | None
    method: str
    scheme: str
    status: int
    error: str

    def attributes(self) -> dict[str, str | int]:
        """The attributes, named as in the semantic conventions."""
        found: dict[str, str | int] = {
            "http.request.method": self.method,
            "http.response.status_code": self.status,
            "url.scheme": self.scheme,
        }
        optional = {"http.route": self.route, "error.type": self.error}
        return found | {name: value for name, value in optional.items() if value}


class Series:
    """Counts of the requests with the same attributes. The event loop writes, an exporter's thread reads."""

    __slots__ = ("attributes", "counts", "exemplars", "longest", "seconds", "shortest")

    def __init__(self, attributes: Attributes) -> None:
        self.attributes = attributes
        self.counts = [0] * (len(BUCKETS) + 1)
        self.seconds = 0.0
        self.shortest, self.longest = float("inf"), 0.0
        self.exemplars: dict[int, tuple[float, int, str, str]] = {}

    def record(self, seconds: float, trace_id: str, span_id: str) -> None:
        """Count one request; a sampled one becomes the exemplar of its bucket, the link from histogram to trace.

        Args:
            seconds: Its duration.
            trace_id: In hex.
            span_id: In hex; empty if the request is not sampled.
        """
        bucket = bisect_left(BUCKETS, seconds)
        self.counts[bucket] += 1
        self.seconds += seconds
        if seconds > self.longest:
            self.longest = seconds
        if seconds < self.shortest:
            self.shortest = seconds
        if span_id:
            self.exemplars[bucket] = (seconds, time.time_ns(), trace_id, span_id)


class Durations:
    """All series, and their counts at the last export."""

    def __init__(self) -> None:
        self.series: dict[SeriesKey, Series] = {}
        self.since = time.time_ns()
        self.exported: dict[SeriesKey, tuple[list[int], float]] = {}

    def of(self, key: SeriesKey) -> Series:
        """The series with these attributes, created if new."""
        series = self.series.get(key)
        if series is None:
            series = self.series[key] = Series(key.attributes())
        return series

    def add_to(self, data: MetricsData, delta: bool) -> MetricsData:
        """Add this histogram to an export of the SDK.

        Args:
            data: From a metric reader.
            delta: Whether to export the counts since the last export, not the totals.
        """
        now = time.time_ns()
        points = [self._point(key, series, now, delta) for key, series in list(self.series.items())]
        if delta:
            self.since = now
            points = [point for point in points if point.count]
        if not points or not data.resource_metrics:
            return data
        temporality = AggregationTemporality.DELTA if delta else AggregationTemporality.CUMULATIVE
        metric = Metric(NAME, DESCRIPTION, UNIT, Histogram(points, temporality))
        first, *others = data.resource_metrics
        ours = ScopeMetrics(InstrumentationScope(__name__), [metric], "")
        return replace(data, resource_metrics=[replace(first, scope_metrics=[*first.scope_metrics, ours]), *others])

    def _point(self, key: SeriesKey, series: Series, now: int, delta: bool) -> HistogramDataPoint:
        counts, seconds = series.counts.copy(), series.seconds
        shortest, longest = series.shortest, series.longest
        exemplars, series.exemplars = series.exemplars, {}
        if delta:
            series.shortest, series.longest = float("inf"), 0.0
            before = self.exported.get(key, ([0] * len(counts), 0.0))
            self.exported[key] = counts, seconds
            counts = [count - old for count, old in zip(counts, before[0], strict=True)]
            seconds -= before[1]
        return HistogramDataPoint(
            attributes=series.attributes,
            start_time_unix_nano=self.since,
            time_unix_nano=now,
            count=sum(counts),
            sum=seconds,
            bucket_counts=counts,
            explicit_bounds=BUCKETS,
            min=shortest,
            max=longest,
            exemplars=[
                Exemplar({}, value, at, int(span_id, 16), int(trace_id, 16))
                for value, at, trace_id, span_id in exemplars.values()
            ],
        )
