"""OpenTelemetry's SDK, put together after the settings: who sends, what, and where to."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from fastapi import FastAPI
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricReader, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider

from ..state import Line, release_of
from .durations import Durations
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


@dataclass
class Parts:
    """What the room `telemetry` works with; None where it is not wanted."""

    tracers: TracerProvider | None = None
    meters: MeterProvider | None = None
    durations: Durations = field(default_factory=Durations)
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
        kind, size = settings.otel_traces_sampler, settings.otel_bsp_max_export_batch_size
        parts.tracers = traces.make(kind, settings.ratio, resource, far, watchers, size)
        parts.flushes.append(parts.tracers.shutdown)
    if reader := _reader(settings, parts.durations):
        parts.meters = MeterProvider([reader], resource, shutdown_on_exit=False)
        parts.flushes.append(parts.meters.shutdown)
    if settings.sends("logs"):
        from . import log_records

        parts.lines, flush = log_records.make(resource, _far(settings, "logs"))
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


def _reader(settings: Settings, durations: Durations) -> MetricReader | None:
    if settings.sends("metrics"):
        from .otlp import DurationsExporter

        exporter = DurationsExporter(durations, **_far(settings, "metrics"))
        return PeriodicExportingMetricReader(exporter, settings.otel_metric_export_interval)
    if settings.otel_metrics_exporter == "prometheus" and not settings.otel_sdk_disabled:
        from .scrape import serve

        return serve(durations, getattr(settings, "host", "127.0.0.1"), settings.metrics_port)
    return None
