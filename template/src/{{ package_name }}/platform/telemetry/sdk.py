"""Starts OpenTelemetry's SDK from the settings: resource, providers and exporters."""

import os
from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI
from opentelemetry.metrics import set_meter_provider
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricReader, PeriodicExportingMetricReader
from opentelemetry.sdk.metrics.view import DropAggregation, View
from opentelemetry.sdk.resources import Resource
from opentelemetry.trace import set_tracer_provider

from ..state import release_of, state_of
from .durations import Durations
from .http import make_traced
from .metrics import EventLoopLag, Requests, install
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


class _Resource(Resource):
    """The same object for each span; the SDK's own hash would write all attributes as JSON for each."""

    def __hash__(self) -> int:
        return id(self)


def start(
    app: FastAPI, settings: Settings, local_exporters: Sequence[Any]
) -> tuple[Requests | None, EventLoopLag | None]:
    """Start what the settings require; its outputs and its flushes are added to the state of the application.

    Args:
        app: Its name and version identify the resource.
        settings: Of the room.
        local_exporters: Exporters inside the process, which get each span.

    Returns:
        What counts requests, and what measures the event loop; None if metrics are not exported.
    """
    # The stable semantic conventions; instrumentations still default to the old names.
    os.environ.setdefault("OTEL_SEMCONV_STABILITY_OPT_IN", "http,database")
    state, resource = state_of(app), _resource(app, settings)
    if settings.sends("traces") or local_exporters:
        from . import traces

        options = settings.options("traces") if settings.sends("traces") else None
        kind, size = settings.otel_traces_sampler, settings.otel_bsp_max_export_batch_size
        tracers = traces.make(kind, settings.ratio, resource, options, local_exporters, size)
        set_tracer_provider(tracers)
        state.traced = make_traced(app, tracers)
        state.flushes.append(tracers.shutdown)
    if settings.sends("logs"):
        from . import log_records

        emit, flush = log_records.make(resource, settings.options("logs"))
        state.lines.append(emit)
        state.flushes.append(flush)
    durations = Durations()
    if not (reader := _reader(settings, durations)):
        return None, None
    once = View(meter_name="fastapi", aggregation=DropAggregation())  # mounted applications count requests again
    meters = MeterProvider([reader], resource, shutdown_on_exit=False, views=[once])
    set_meter_provider(meters)
    state.flushes.append(meters.shutdown)
    return install(meters, state, durations)


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
    complete = Resource.create({**ours, **pod, **given})
    return _Resource(complete.attributes, complete.schema_url)


def _reader(settings: Settings, durations: Durations) -> MetricReader | None:
    if settings.sends("metrics"):
        from .otlp import DurationsExporter

        exporter = DurationsExporter(durations, **settings.options("metrics"))
        return PeriodicExportingMetricReader(exporter, settings.otel_metric_export_interval)
    if settings.otel_metrics_exporter == "prometheus" and not settings.otel_sdk_disabled:
        from .scrape import serve

        return serve(durations, getattr(settings, "address", "127.0.0.1"), settings.metrics_port)
    return None
