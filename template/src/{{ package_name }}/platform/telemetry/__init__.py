"""Traces, metrics and logs with OpenTelemetry; without an endpoint its SDK is not even imported.

Requests are sampled here, because FastAPI and instrumentations collect attributes before they ask a sampler: only
sampled requests reach them (`telemetry.http`). Request metrics are our own, so that each request counts once, sampled
or not.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastapi import FastAPI
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.context import Context, attach, detach
from opentelemetry.trace import (
    INVALID_SPAN_CONTEXT,
    NonRecordingSpan,
    Span,
    SpanContext,
    TraceState,
    set_span_in_context,
)

from ..room import Room
from ..settings import RoomSettings, part
from ..state import QUIET, Headers, RequestContext, current, state_of
from .settings import Settings, share_of

if TYPE_CHECKING:
    from .metrics import Requests

LOWER_64_BITS = (1 << 64) - 1
EMPTY_CONTEXT = Context()
BAGGAGE = W3CBaggagePropagator()


@dataclass(frozen=True, slots=True)
class RequestTelemetry:
    """What each request uses while traces or metrics are exported.

    Args:
        samples: Decides whether a request is traced; None if traces are not exported.
        requests: Counts requests; None if metrics are not exported.
    """

    samples: Callable[[RequestContext], bool] | None
    requests: "Requests | None"


class _Unsampled(NonRecordingSpan):
    """The span of every unsampled request: one object for all, which reads the current request's ids on demand."""

    def get_span_context(self) -> SpanContext:
        context = current.get()
        trace_id = int(context.trace_id, 16) if context else 0
        return SpanContext(trace_id, trace_id & LOWER_64_BITS or 1, False)


UNSAMPLED_CONTEXT = set_span_in_context(_Unsampled(INVALID_SPAN_CONTEXT), EMPTY_CONTEXT)


def _unsampled_context(context: RequestContext) -> Context:
    """The OpenTelemetry context of an unsampled request: its ids, and the caller's baggage and trace state."""
    if not context.parent_id:
        return UNSAMPLED_CONTEXT
    headers: dict[bytes, list[str]] = {b"baggage": [], b"tracestate": []}
    for name, value in context.scope["headers"]:
        if name in headers:
            headers[name].append(value.decode("latin-1"))
    state = TraceState.from_header(headers[b"tracestate"]) if headers[b"tracestate"] else None
    ids = int(context.trace_id, 16), int(context.parent_id, 16)
    span = NonRecordingSpan(SpanContext(*ids, True, None, state))
    baggage = {"baggage": ",".join(headers[b"baggage"])}
    return set_span_in_context(span, BAGGAGE.extract(baggage, EMPTY_CONTEXT) if baggage["baggage"] else EMPTY_CONTEXT)


def sampler(kind: str, ratio: float) -> Callable[[RequestContext], bool]:
    """Decide like the SDK's sampler of that name, without the objects that it creates for each request.

    https://opentelemetry.io/docs/specs/otel/trace/sdk/#built-in-samplers

    Args:
        kind: As in OTEL_TRACES_SAMPLER.
        ratio: The share of traces, for samplers that take one.
    """
    bound = round(share_of(kind, ratio) * (LOWER_64_BITS + 1))
    follows = kind.startswith("parentbased_")

    def samples(context: RequestContext) -> bool:
        if follows and context.parent_id:
            return context.parent_sampled
        return int(context.trace_id, 16) & LOWER_64_BITS < bound

    return samples


def begin(context: RequestContext) -> None:
    """Count the request as active, and decide whether it is sampled."""
    telemetry: RequestTelemetry | None = context.state.own.get(RequestTelemetry)
    if telemetry and telemetry.requests:
        telemetry.requests.begin(context)
    if telemetry and telemetry.samples:
        context.sampled = context.path not in QUIET and telemetry.samples(context)
        if not context.sampled:  # outgoing calls carry its trace id, and are not sampled either
            context.notes[RequestTelemetry] = attach(_unsampled_context(context))


def respond(context: RequestContext, headers: Headers) -> None:
    """Set the span's route, which is known by now and includes mounts, unlike that of instrumentations."""
    span: Span | None = context.notes.get(Span)
    if span and span.is_recording() and (route := context.route):
        span.set_attribute("http.route", route)
        span.update_name(f"{context.method.replace('_OTHER', 'HTTP')} {route}")


def finish(context: RequestContext) -> None:
    """Count the finished request."""
    telemetry: RequestTelemetry | None = context.state.own.get(RequestTelemetry)
    if token := context.notes.get(RequestTelemetry):
        detach(token)
    if telemetry and telemetry.requests:
        telemetry.requests.finish(context)


@asynccontextmanager
async def lifespan(app: FastAPI, settings: RoomSettings) -> AsyncIterator[None]:
    """Build the providers in the process that serves, so that workers share no thread and no connection."""
    own, state = part(settings, Settings), state_of(app)
    prometheus = own.otel_metrics_exporter == "prometheus" and not own.otel_sdk_disabled
    local = state.spans and not own.otel_sdk_disabled
    if not (prometheus or local or own.sends("traces") or own.sends("metrics") or own.sends("logs")):
        yield
        return
    from . import sdk

    requests, lag = sdk.start(app, own, state.spans if local else [])
    samples = sampler(own.otel_traces_sampler, own.ratio) if state.traced else None
    state.own[RequestTelemetry] = RequestTelemetry(samples, requests)
    lag_task = asyncio.create_task(lag.measure()) if lag else None
    yield
    del state.own[RequestTelemetry]
    state.traced = None
    if lag_task:
        lag_task.cancel()
        with suppress(asyncio.CancelledError):
            await lag_task


ROOM = Room(settings=Settings, begin=begin, respond=respond, finish=finish, lifespan=lifespan)
