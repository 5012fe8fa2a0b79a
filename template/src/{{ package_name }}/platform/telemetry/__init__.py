"""Traces, metrics and logs by OpenTelemetry: without an endpoint nothing is built, imported or paid for.

A request is sampled here, before anything is collected of it: only then it enters an instrumentation
(`telemetry.http`). The metrics of requests are ours, so that each request counts once, sampled or not.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

from fastapi import FastAPI
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.context import Context, attach, detach
from opentelemetry.metrics import set_meter_provider
from opentelemetry.trace import (
    INVALID_SPAN_CONTEXT,
    NonRecordingSpan,
    Span,
    SpanContext,
    TraceState,
    set_span_in_context,
    set_tracer_provider,
)

from ..room import Room, find_module
from ..settings import RoomSettings, part
from ..state import QUIET, Headers, RequestContext, current, state_of
from .settings import Settings

if TYPE_CHECKING:
    from .metrics import Requests

HALF = (1 << 64) - 1
NOWHERE = Context()
BAGGAGE = W3CBaggagePropagator()


@dataclass(frozen=True, slots=True)
class Watch:
    """What is asked at each request, while something is sent.

    Args:
        samples: Decides for traces; None where none are sent.
        requests: Counts; None where no metrics are wanted.
    """

    samples: Callable[[RequestContext], bool] | None
    requests: "Requests | None"


class _Unsampled(NonRecordingSpan):
    """Stands for the request that runs just now: one for all of them, which makes their ids when somebody asks."""

    def get_span_context(self) -> SpanContext:
        context = current.get()
        trace_id = int(context.trace_id, 16) if context else 0
        return SpanContext(trace_id, trace_id & HALF or 1, False)


ALONE = set_span_in_context(_Unsampled(INVALID_SPAN_CONTEXT), NOWHERE)


def _around(context: RequestContext) -> Context:
    """The context in which a request without a span of its own runs: its ids, and what the caller hands on."""
    if not context.parent_id:
        return ALONE
    handed: dict[bytes, list[str]] = {b"baggage": [], b"tracestate": []}
    for name, value in context.scope["headers"]:
        if name in handed:
            handed[name].append(value.decode("latin-1"))
    state = TraceState.from_header(handed[b"tracestate"]) if handed[b"tracestate"] else None
    ids = int(context.trace_id, 16), int(context.parent_id, 16)
    span = NonRecordingSpan(SpanContext(*ids, True, None, state))
    baggage = {"baggage": ",".join(handed[b"baggage"])}
    return set_span_in_context(span, BAGGAGE.extract(baggage, NOWHERE) if baggage["baggage"] else NOWHERE)


def sampler(kind: str, ratio: float) -> Callable[[RequestContext], bool]:
    """What the SDK's sampler of that name decides, without the objects that it makes for each request.

    https://opentelemetry.io/docs/specs/otel/trace/sdk/#built-in-samplers

    Args:
        kind: As in OTEL_TRACES_SAMPLER.
        ratio: The share of traces, where it takes a share.
    """
    share = {"always_off": 0.0, "always_on": 1.0}.get(kind.removeprefix("parentbased_"), ratio)
    bound = round(share * (HALF + 1))
    follows = kind.startswith("parentbased_")

    def samples(context: RequestContext) -> bool:
        if follows and context.parent_id:
            return context.parent_sampled
        return int(context.trace_id, 16) & HALF < bound

    return samples


def begin(context: RequestContext) -> None:
    """Count the request as active, and decide whether it is sampled."""
    watch: Watch | None = context.state.own.get(Watch)
    if watch and watch.requests:
        watch.requests.begin(context)
    if watch and watch.samples:
        context.sampled = context.scope["path"] not in QUIET and watch.samples(context)
        if not context.sampled:  # what the request calls is not sampled either, and calls carry its trace id
            context.notes[Watch] = attach(_around(context))


def respond(context: RequestContext, headers: Headers) -> None:
    """Give the span its route, which is known by now: joined over mounts, as instrumentations do not."""
    span: Span | None = context.notes.get(Span)
    if span and (route := context.route):
        span.set_attribute("http.route", route)
        span.update_name(f"{context.method.replace('_OTHER', 'HTTP')} {route}")


def finish(context: RequestContext) -> None:
    """Count the request with its answer."""
    watch: Watch | None = context.state.own.get(Watch)
    if token := context.notes.get(Watch):
        detach(token)
    if watch and watch.requests:
        watch.requests.finish(context)


@asynccontextmanager
async def lifespan(app: FastAPI, settings: RoomSettings) -> AsyncIterator[None]:
    """Build what the settings ask for: in the process that serves, so that workers share no thread, no connection."""
    mine, state = part(settings, Settings), state_of(app)
    prometheus = mine.otel_metrics_exporter == "prometheus" and not mine.otel_sdk_disabled
    watched = state.spans and not mine.otel_sdk_disabled
    if not (prometheus or watched or mine.sends("traces") or mine.sends("metrics") or mine.sends("logs")):
        yield
        return
    sdk = import_module(".sdk", __package__)
    parts = sdk.build(app, mine, state.spans if watched else [])
    if parts.tracers:
        set_tracer_provider(parts.tracers)
        if http := find_module("http", __package__ or ""):  # else FastAPI makes the spans itself
            state.traced = http.make_traced(app, parts.tracers)
    if parts.lines:
        state.lines.append(parts.lines)
    requests = lag = None
    if parts.meters:
        set_meter_provider(parts.meters)
        meters = import_module(".metrics", __package__)
        requests, lag = meters.install(parts.meters, state, parts.durations)
    samples = sampler(mine.otel_traces_sampler, mine.ratio) if parts.tracers else None
    state.own[Watch] = Watch(samples, requests)
    state.flushes += parts.flushes
    watching = asyncio.create_task(lag.watch()) if lag else None
    yield
    del state.own[Watch]
    state.traced = None
    if watching:
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching


ROOM = Room(settings=Settings, begin=begin, respond=respond, finish=finish, lifespan=lifespan)
