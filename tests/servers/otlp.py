"""A collector for tests: takes what a service exports over OTLP/HTTP, on a real socket; it can be slow, or hang."""

import gzip
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric as PbMetric
from opentelemetry.proto.trace.v1.trace_pb2 import Span as PbSpan
from opentelemetry.proto.trace.v1.trace_pb2 import Status as PbStatus

from tests.servers.process import ServerError
from tests.servers.server import serving

Attributes = dict[str, Any]
HANG_SECONDS = 120.0


@dataclass(frozen=True)
class Span:
    """A span as it arrived; ids in hex, `parent_id` empty at a root."""

    name: str
    kind: str
    trace_id: str
    span_id: str
    parent_id: str
    attributes: Attributes
    events: list[tuple[str, Attributes]]
    error: bool
    resource: Attributes


@dataclass(frozen=True)
class Point:
    """The newest value of one series; `value` is the count of a histogram."""

    name: str
    unit: str
    kind: str
    attributes: Attributes
    value: float
    resource: Attributes
    bounds: tuple[float, ...] = ()
    total: float = 0.0


@dataclass(frozen=True)
class Line:
    """A log record."""

    body: str
    severity: str
    trace_id: str
    span_id: str
    attributes: Attributes
    resource: Attributes


@dataclass
class Collector:
    """What came in. `delay` holds each answer back by so many seconds, `float("inf")` for good."""

    port: int = 0
    delay: float = 0.0
    spans: list[Span] = field(default_factory=list)
    points: dict[tuple[Any, ...], Point] = field(default_factory=dict)
    lines: list[Line] = field(default_factory=list)
    exemplars: set[str] = field(default_factory=set)
    headers: list[dict[str, str]] = field(default_factory=list)
    exports: int = 0
    broken: list[str] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def server_spans(self) -> list[Span]:
        return [span for span in self.spans if span.kind == "SERVER"]

    def client_spans(self) -> list[Span]:
        return [span for span in self.spans if span.kind == "CLIENT"]

    def named(self, metric: str) -> list[Point]:
        """The newest points of a metric."""
        return [point for point in list(self.points.values()) if point.name == metric]

    def wait_until(self, true: Callable[[], bool], seconds: float = 10.0) -> None:
        """Return once `true()`; `ServerError` with what came in otherwise."""
        deadline = time.monotonic() + seconds
        while not true():
            if time.monotonic() > deadline:
                names = sorted({span.name for span in self.spans})
                raise ServerError(f"not within {seconds:g} s; {self.exports} exports, spans {names}, {self.broken}")
            time.sleep(0.05)

    def take(self, path: str, body: bytes, headers: dict[str, str]) -> None:
        """Read one export.

        Raises:
            ValueError: It is none.
        """
        self.exports += 1
        self.headers.append(headers)
        match path:
            case "/v1/traces":
                self._traces(ExportTraceServiceRequest.FromString(body))
            case "/v1/metrics":
                self._metrics(ExportMetricsServiceRequest.FromString(body))
            case "/v1/logs":
                self._logs(ExportLogsServiceRequest.FromString(body))
            case _:
                raise ValueError(f"no signal at {path}")

    def _traces(self, request: ExportTraceServiceRequest) -> None:
        for sent in request.resource_spans:
            resource = _attributes(sent.resource.attributes)
            for scope in sent.scope_spans:
                self.spans += [
                    Span(
                        name=span.name,
                        kind=PbSpan.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
                        trace_id=span.trace_id.hex(),
                        span_id=span.span_id.hex(),
                        parent_id=span.parent_span_id.hex(),
                        attributes=_attributes(span.attributes),
                        events=[(event.name, _attributes(event.attributes)) for event in span.events],
                        error=span.status.code == PbStatus.STATUS_CODE_ERROR,
                        resource=resource,
                    )
                    for span in scope.spans
                ]

    def _metrics(self, request: ExportMetricsServiceRequest) -> None:
        for sent in request.resource_metrics:
            resource = _attributes(sent.resource.attributes)
            for scope in sent.scope_metrics:
                for metric in scope.metrics:
                    for point in _points(metric, resource):
                        instance = resource.get("service.instance.id")
                        self.points[instance, point.name, *sorted(point.attributes.items())] = point
                    for histogram in metric.histogram.data_points:
                        self.exemplars |= {each.trace_id.hex() for each in histogram.exemplars}

    def _logs(self, request: ExportLogsServiceRequest) -> None:
        for sent in request.resource_logs:
            resource = _attributes(sent.resource.attributes)
            self.lines += [
                Line(
                    body=record.body.string_value,
                    severity=record.severity_text,
                    trace_id=record.trace_id.hex(),
                    span_id=record.span_id.hex(),
                    attributes=_attributes(record.attributes),
                    resource=resource,
                )
                for scope in sent.scope_logs
                for record in scope.log_records
            ]


def _value(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(each) for each in value.array_value.values]
    return getattr(value, kind) if kind else None


def _attributes(pairs: Any) -> Attributes:
    found: list[KeyValue] = list(pairs)
    return {pair.key: _value(pair.value) for pair in found}


def _batch(span: Span) -> dict[str, Any]:
    """As Tempo shows it; all values are strings here."""

    def pairs(attributes: Attributes) -> list[dict[str, Any]]:
        return [{"key": key, "value": {"stringValue": str(value)}} for key, value in attributes.items()]

    shown = {"spanId": span.span_id, "name": span.name, "traceId": span.trace_id, "attributes": pairs(span.attributes)}
    return {"resource": {"attributes": pairs(span.resource)}, "scopeSpans": [{"spans": [shown]}]}


def _points(metric: PbMetric, resource: Attributes) -> Iterator[Point]:
    kind = metric.WhichOneof("data") or ""
    for point in getattr(metric, kind).data_points:
        histogram = kind == "histogram"
        value = point.count if histogram else getattr(point, point.WhichOneof("value") or "as_int")
        falls = kind == "sum" and not metric.sum.is_monotonic
        yield Point(
            name=metric.name,
            unit=metric.unit,
            kind="up_down_sum" if falls else kind,
            attributes=_attributes(point.attributes),
            value=float(value),
            resource=resource,
            bounds=tuple(point.explicit_bounds) if histogram else (),
            total=point.sum if histogram else 0.0,
        )


@contextmanager
def open_collector(delay: float = 0.0) -> Iterator[Collector]:
    """A collector that listens on a free port until the end of the block."""
    collector = Collector(delay=delay)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            """Tempo's way to ask for a trace (grafana.com/docs/tempo/latest/api_docs): 404 until it is there."""
            wanted = self.path.removeprefix("/api/traces/")
            batches = [_batch(span) for span in collector.spans if span.trace_id == wanted]
            body = json.dumps({"batches": batches}).encode() if batches else b"trace not found"
            self.send_response(200 if batches else 404)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            if collector.delay:
                collector.over.wait(min(collector.delay, HANG_SECONDS))
            try:
                collector.take(self.path, body, {name.lower(): value for name, value in self.headers.items()})
                status = 200
            except Exception as error:  # a service has sent what no collector takes: the test has to see it
                collector.broken.append(repr(error))
                status = 400
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *arguments: object) -> None: ...

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        block_on_close = False

        def handle_error(self, request: object, client_address: object) -> None: ...  # clients may go while it hangs

    with serving(Server(("127.0.0.1", 0), Handler)) as collector.port:
        try:
            yield collector
        finally:
            collector.over.set()
