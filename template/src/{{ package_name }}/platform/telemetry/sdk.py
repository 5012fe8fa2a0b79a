"""OpenTelemetry's SDK, put together after the settings: who sends, what, and where to."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import structlog
from fastapi import FastAPI
from opentelemetry._logs import SeverityNumber
from opentelemetry.context import Context
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, set_span_in_context

from ..state import Line, release_of
from .settings import Settings

# Set from the pod's own fields (downward API); names of https://opentelemetry.io/docs/specs/semconv/resource/k8s/.
POD = (
    "K8S_CONTAINER_NAME",
    "K8S_DEPLOYMENT_NAME",
    "K8S_NAMESPACE_NAME",
    "K8S_NODE_NAME",
    "K8S_POD_NAME",
    "K8S_POD_UID",
)
SEVERITY = {
    "debug": SeverityNumber.DEBUG,
    "info": SeverityNumber.INFO,
    "warning": SeverityNumber.WARN,
    "error": SeverityNumber.ERROR,
    "critical": SeverityNumber.FATAL,
}


@dataclass
class Parts:
    """What the room `telemetry` works with; None where it is not wanted."""

    tracers: TracerProvider | None = None
    meters: MeterProvider | None = None
    lines: Line | None = None
    flushes: list[Callable[[], object]] = field(default_factory=list)


def build(app: FastAPI, settings: Settings, watchers: Sequence[Any]) -> Parts:
    """Make the providers that the settings of the room ask for; nothing is sent before they are used.

    Args:
        app: Whose name and version the resource has.
        settings: The room's.
        watchers: Exporters inside the process, given each span.
    """
    # The stable names of the semantic conventions; instrumentations still default to the old ones.
    os.environ.setdefault("OTEL_SEMCONV_STABILITY_OPT_IN", "http,database")
    parts, resource = Parts(), _resource(app, settings)
    if settings.sends("traces") or watchers:
        from . import traces

        far = _far(settings, "traces") if settings.sends("traces") else None
        parts.tracers = traces.make(settings.otel_traces_sampler, settings.ratio, resource, far, watchers)
        parts.flushes.append(parts.tracers.shutdown)
    if readers := _readers(settings):
        parts.meters = MeterProvider(readers, resource, shutdown_on_exit=False)
        parts.flushes.append(parts.meters.shutdown)
    if settings.sends("logs"):
        parts.lines, flush = _lines(settings, resource)
        parts.flushes.append(flush)
    return parts


def _resource(app: FastAPI, settings: Settings) -> Resource:
    given = settings.pairs("otel_resource_attributes")
    if settings.otel_service_name:
        given["service.name"] = settings.otel_service_name
    ours = {
        "deployment.environment.name": settings.environment,
        "service.name": app.title,
        "service.version": release_of(app),
        "vcs.ref.head.revision": settings.git_commit,
    }
    pod = {name.lower().replace("_", "."): os.environ[name] for name in POD if os.environ.get(name)}
    return Resource.create({**ours, **pod, **given})


def _far(settings: Settings, signal: Literal["logs", "metrics", "traces"]) -> dict[str, Any]:
    """The arguments of an exporter; a signal's own variable wins over the common one."""
    own = os.environ.get(f"OTEL_EXPORTER_OTLP_{signal.upper()}_ENDPOINT")
    return {
        "endpoint": own or f"{settings.otel_exporter_otlp_endpoint}/v1/{signal}",
        "headers": settings.pairs("otel_exporter_otlp_headers") or None,
        "timeout": settings.otel_exporter_otlp_timeout,
    }


def _readers(settings: Settings) -> list[Any]:
    if settings.sends("metrics"):
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
        from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader

        exporter = OTLPMetricExporter(**_far(settings, "metrics"))
        return [PeriodicExportingMetricReader(exporter, settings.otel_metric_export_interval)]
    if settings.otel_metrics_exporter == "prometheus" and not settings.otel_sdk_disabled:
        return [_scraped(getattr(settings, "host", "127.0.0.1"), settings.metrics_port)]
    return []


def _scraped(host: str, port: int) -> Any:
    """Serve the metrics on a port of their own: never on the public one, and from a thread of its own."""
    from opentelemetry.exporter.prometheus import PrometheusMetricReader
    from prometheus_client import CollectorRegistry, start_http_server

    log = structlog.get_logger("telemetry")
    registry = CollectorRegistry()
    reader = PrometheusMetricReader(scope_info_enabled=False, registry=registry)
    try:
        server, _ = start_http_server(port, host, registry)
        log.info("metrics", port=server.server_port)
    except OSError as error:  # the service serves without them; a second worker on this port is the usual reason
        log.error(
            "no metrics", port=port, reason=os.strerror(error.errno or 0), advice="set METRICS_PORT to a free port"
        )
    return reader


def _lines(settings: Settings, resource: Resource) -> tuple[Line, Callable[[], object]]:
    from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
    from opentelemetry.sdk._logs import LoggerProvider
    from opentelemetry.sdk._logs.export import BatchLogRecordProcessor

    provider = LoggerProvider(resource, shutdown_on_exit=False)
    provider.add_log_record_processor(BatchLogRecordProcessor(OTLPLogExporter(**_far(settings, "logs"))))
    logger = provider.get_logger(__name__)

    def emit(line: Mapping[str, Any]) -> None:
        if str(line.get("logger", "")).startswith("opentelemetry"):
            return  # that sending failed is not to be sent
        level = str(line.get("level", "info"))
        inside = ("event", "level", "span_id", "timestamp", "trace_id")
        logger.emit(
            body=str(line.get("event", "")),
            severity_number=SEVERITY.get(level, SeverityNumber.INFO),
            severity_text=level.upper(),
            attributes={
                name: _plain(value) for name, value in line.items() if name not in inside and value is not None
            },
            context=_context(line),
        )

    return emit, provider.shutdown


def _plain(value: Any) -> Any:
    return value if isinstance(value, bool | int | float | str) else str(value)


def _context(line: Mapping[str, Any]) -> Context | None:
    """The access line is written when the span is over: the ids are in it."""
    if "span_id" not in line or "trace_id" not in line:
        return None
    ids = int(line["trace_id"], 16), int(line["span_id"], 16)
    flags = TraceFlags(TraceFlags.SAMPLED)
    return set_span_in_context(NonRecordingSpan(SpanContext(*ids, is_remote=False, trace_flags=flags)))
