"""Creates and exports spans: with the trace id of the request, sampled by the settings, and without secrets."""

from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan, Span, SpanLimits, SpanProcessor, TracerProvider, sampling
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.trace import SpanKind, Status
from wrapt import register_post_import_hook

from ..redaction import redact
from ..state import current
from .pacing import Pace
from .settings import share_of

# Query strings contain search terms and tokens; the path is enough to identify a request. A client's port says nothing.
DROPPED = ("client.port", "url.query")
URLS = ("http.url", "url.full")
MAX_ATTRIBUTE_CHARACTERS = 2_048  # of a span's attribute: clients choose paths and user agents
MAX_EVENT_CHARACTERS = 16_384  # of an event's attribute, such as a traceback


class _Ids(RandomIdGenerator):
    """Gives the first span of a sampled request the trace id that the door generated."""

    def generate_trace_id(self) -> int:
        context = current.get()
        if context and context.sampled and not context.span_id:
            return int(context.trace_id, 16)
        return super().generate_trace_id()


class _RequestSpan(SpanProcessor):
    """Stores the request's span and its ids in the request context."""

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        context = current.get()
        if context and not context.span_id and span.kind is SpanKind.SERVER:
            found = span.get_span_context()
            context.trace_id, context.span_id = f"{found.trace_id:032x}", f"{found.span_id:016x}"
            context.notes[trace.Span] = span


class Redacting(SpanExporter):
    """Redacts spans in the exporter's thread, where no request waits for it.

    Args:
        exporter: Gets the redacted copies.
    """

    def __init__(self, exporter: SpanExporter) -> None:
        self.exporter = exporter
        self.pace = Pace()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send redacted copies."""
        return self.exporter.export(self.pace.spread(spans, _clean))

    def shutdown(self) -> None:
        """Stop the exporter."""
        self.exporter.shutdown()


def _clean(span: ReadableSpan) -> ReadableSpan:
    return ReadableSpan(
        redact(span.name),
        context=span.context,
        parent=span.parent,
        resource=span.resource,
        attributes=_attributes(span.attributes),
        events=[Event(event.name, _attributes(event.attributes), event.timestamp) for event in span.events],
        links=span.links,
        kind=span.kind,
        status=Status(span.status.status_code, redact(span.status.description)),
        start_time=span.start_time,
        end_time=span.end_time,
        instrumentation_scope=span.instrumentation_scope,
    )


def _attributes(given: Mapping[str, Any] | None) -> dict[str, Any]:
    found = {}
    for name, value in (given or {}).items():
        if name in URLS:
            value = str(value).partition("?")[0]
        if name not in DROPPED:
            found[name] = redact(value, name)
    return found


def make(
    kind: str,
    ratio: float,
    resource: Resource,
    exporter_options: Mapping[str, Any] | None,
    local_exporters: Sequence[SpanExporter],
    batch_size: int = 128,
) -> TracerProvider:
    """Create the provider of spans.

    Args:
        kind: The sampler, as in OTEL_TRACES_SAMPLER.
        ratio: The share of traces, for samplers that take one.
        resource: Identifies the service.
        exporter_options: Arguments of the OTLP exporter; None if it is off.
        local_exporters: Inside the process; each gets a span as soon as it ends.
        batch_size: Most spans per request to the collector.
    """
    root = sampling.TraceIdRatioBased(share_of(kind, ratio))
    sampler = sampling.ParentBased(root) if kind.startswith("parentbased_") else root
    limits = SpanLimits(max_attribute_length=MAX_EVENT_CHARACTERS, max_span_attribute_length=MAX_ATTRIBUTE_CHARACTERS)
    provider = TracerProvider(sampler, resource, shutdown_on_exit=False, id_generator=_Ids(), span_limits=limits)
    provider.add_span_processor(_RequestSpan())
    for local in local_exporters:
        provider.add_span_processor(SimpleSpanProcessor(Redacting(local)))
    if exporter_options is not None:
        exporter = Redacting(OTLPSpanExporter(**exporter_options))
        provider.add_span_processor(BatchSpanProcessor(exporter, max_export_batch_size=batch_size))
    _trace_calls(provider)
    return provider


def _trace_calls(provider: TracerProvider) -> None:
    """Trace each call with httpx as one client span, and propagate the trace; starts when httpx is imported."""

    def instrument(library: ModuleType) -> None:
        from opentelemetry.instrumentation import httpx

        kind = httpx.HTTPXClientInstrumentor if library.__name__ == "httpx" else httpx.HTTPX2ClientInstrumentor
        kind().instrument(tracer_provider=provider, meter_provider=NoOpMeterProvider())

    for library in ("httpx", "httpx2"):
        register_post_import_hook(instrument, library)
