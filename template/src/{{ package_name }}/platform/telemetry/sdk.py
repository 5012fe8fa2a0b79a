"""Builds OpenTelemetry's SDK from the settings: resource, providers and exporters."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from fastapi import FastAPI
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricReader, PeriodicExportingMetricReader
from opentelemetry.sdk.metrics.view import DropAggregation, View
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider

from ..state import Line, release_of
from .durations import Durations
from .settings import Settings, pairs

# Set from the pod's own fields (downward API); named after https://opentelemetry.io/docs/specs/semconv/resource/k8s/.
POD = (
    "K8S_CONTAINER_NAME",
    "K8S_DEPLOYMENT_NAME",
    "K8S_NAMESPACE_NAME",
    "K8S_NODE_NAME",
    "K8S_POD_NAME",
    "K8S_POD_UID",
)


@dataclass
class Providers:
    """What the room `telemetry` uses; None if the settings switch it off."""

    tracers: TracerProvider | None = None
    meters: MeterProvider | None = None
    durations: Durations = field(default_factory=Durations)
    lines: Line | None = None
    flushes: list[Callable[[], object]] = field(default_factory=list)


def build(app: FastAPI, settings: Settings, local_exporters: Sequence[Any]) -> Providers:
    """Build the providers that the settings require; nothing is sent before they are used.

    Args:
        app: Its name and version identify the resource.
        settings: Of the room.
        local_exporters: Exporters inside the process, which get each span.
    """
    # The stable semantic conventions; instrumentations still default to the old names.
    os.environ.setdefault("OTEL_SEMCONV_STABILITY_OPT_IN", "http,database")
    providers, resource = Providers(), _resource(app, settings)
    if settings.sends("traces") or local_exporters:
        from . import traces

        options = settings.options("traces") if settings.sends("traces") else None
        kind, size = settings.otel_traces_sampler, settings.otel_bsp_max_export_batch_size
        providers.tracers = traces.make(kind, settings.ratio, resource, options, local_exporters, size)
        providers.flushes.append(providers.tracers.shutdown)
    if reader := _reader(settings, providers.durations):
        once = View(meter_name="fastapi", aggregation=DropAggregation())  # mounted applications count requests again
        providers.meters = MeterProvider([reader], resource, shutdown_on_exit=False, views=[once])
        providers.flushes.append(providers.meters.shutdown)
    if settings.sends("logs"):
        from . import log_records

        providers.lines, flush = log_records.make(resource, settings.options("logs"))
        providers.flushes.append(flush)
    return providers


def _resource(app: FastAPI, settings: Settings) -> Resource:
    given = pairs(settings.otel_resource_attributes.get_secret_value())
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


def _reader(settings: Settings, durations: Durations) -> MetricReader | None:
    if settings.sends("metrics"):
        from .otlp import DurationsExporter

        exporter = DurationsExporter(durations, **settings.options("metrics"))
        return PeriodicExportingMetricReader(exporter, settings.otel_metric_export_interval)
    if settings.otel_metrics_exporter == "prometheus" and not settings.otel_sdk_disabled:
        from .scrape import serve

        return serve(durations, getattr(settings, "address", "127.0.0.1"), settings.metrics_port)
    return None
