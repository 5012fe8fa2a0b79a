"""The spans that leave the service: numbered as the door says, sampled as the settings say, and without secrets."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
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
from .pacing import Paced

# Queries hold what people searched, and their tokens: the path says which call it was.
QUERIES = ("url.query",)
# Of a few values each, in which no secret can be: most of each span.
KNOWN = {
    "client.port",
    "http.request.method",
    "http.response.status_code",
    "http.route",
    "network.protocol.version",
    "server.port",
    "url.scheme",
}
# The same in request after request.
USUAL = {"client.address", "server.address", "user_agent.original"}
ADDRESSES = ("http.url", "url.full")
MAX_ATTRIBUTE_CHARACTERS = 2_048  # characters of an attribute: clients choose paths and user agents
MAX_EVENT_CHARACTERS = 16_384  # characters of one of an event, such as a traceback


class _Ids(RandomIdGenerator):
    """Gives the first span of a sampled request the trace id that the door has made for it."""

    def generate_trace_id(self) -> int:
        context = current.get()
        if context and context.sampled and not context.span_id:
            return int(context.trace_id, 16)
        return super().generate_trace_id()


class _Note(SpanProcessor):
    """Tells the rooms which span is the request's."""

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        context = current.get()
        if context and not context.span_id and span.kind is SpanKind.SERVER:
            found = span.get_span_context()
            context.trace_id, context.span_id = f"{found.trace_id:032x}", f"{found.span_id:016x}"
            context.notes[trace.Span] = span


class Redacting(SpanExporter):
    """Takes secrets out of spans in the exporter's thread, where no request waits.

    Args:
        exporter: Gets the copies.
    """

    def __init__(self, exporter: SpanExporter) -> None:
        self.exporter = exporter

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send copies without secrets."""
        return self.exporter.export(Paced(spans, _clean))

    def shutdown(self) -> None:
        """Give up what is under way."""
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
        if name in ADDRESSES:
            value = str(value).partition("?")[0]
        if name not in QUERIES:
            found[name] = value if name in KNOWN else _usual(value) if name in USUAL else redact(value, name)
    return found


_usual = lru_cache(1024)(redact)


def make(
    kind: str,
    ratio: float,
    resource: Resource,
    far: Mapping[str, Any] | None,
    watchers: Sequence[SpanExporter],
    batch_size: int = 128,
) -> TracerProvider:
    """Make the provider of spans.

    Args:
        kind: Which sampler, by the name that OTEL_TRACES_SAMPLER has for it.
        ratio: The share of traces that it takes, where it takes a share.
        resource: Who sends.
        far: Arguments of the exporter; None where nothing leaves the process.
        watchers: Given each span at once, inside the process.
        batch_size: Spans that one request to the far end holds at most.
    """
    root = sampling.TraceIdRatioBased(ratio)
    samplers: dict[str, sampling.Sampler] = {
        "always_off": sampling.ALWAYS_OFF,
        "always_on": sampling.ALWAYS_ON,
        "parentbased_always_off": sampling.DEFAULT_OFF,
        "parentbased_always_on": sampling.DEFAULT_ON,
        "parentbased_traceidratio": sampling.ParentBased(root),
        "traceidratio": root,
    }
    limits = SpanLimits(max_attribute_length=MAX_EVENT_CHARACTERS, max_span_attribute_length=MAX_ATTRIBUTE_CHARACTERS)
    provider = TracerProvider(samplers[kind], resource, shutdown_on_exit=False, id_generator=_Ids(), span_limits=limits)
    provider.add_span_processor(_Note())
    for watcher in watchers:
        provider.add_span_processor(SimpleSpanProcessor(Redacting(watcher)))
    if far is not None:
        exporter = Redacting(OTLPSpanExporter(**far))
        provider.add_span_processor(BatchSpanProcessor(exporter, max_export_batch_size=batch_size))
    _trace_calls(provider)
    return provider


def _trace_calls(provider: TracerProvider) -> None:
    """Make each call by httpx one client span that hands its trace on, once somebody has imported httpx."""

    def instrument(library: ModuleType) -> None:
        from opentelemetry.instrumentation import httpx

        kind = httpx.HTTPXClientInstrumentor if library.__name__ == "httpx" else httpx.HTTPX2ClientInstrumentor
        kind().instrument(tracer_provider=provider, meter_provider=NoOpMeterProvider())

    for library in ("httpx", "httpx2"):
        register_post_import_hook(instrument, library)
