"""Traces, metrics and logs by OpenTelemetry: without an endpoint nothing is built, imported or paid for.

A request is sampled here, before anything is collected of it: only then it enters an instrumentation
(`telemetry_http`). The metrics of requests are ours, so that each request counts once, sampled or not.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Literal
from urllib.parse import unquote, urlsplit

from fastapi import FastAPI
from opentelemetry import context, metrics, trace
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.context import Context
from opentelemetry.trace import INVALID_SPAN_CONTEXT, NonRecordingSpan, SpanContext, TraceState, set_span_in_context
from pydantic import AfterValidator, BeforeValidator, Field, SecretStr

from .settings import OrOff, RealInProduction, RoomSettings, part
from .state import QUIET, Exchange, current, state_of

if TYPE_CHECKING:
    from .telemetry_metrics import Requests

HALF = (1 << 64) - 1
NOWHERE = Context()
BAGGAGE = W3CBaggagePropagator()


def _address(url: str) -> str:
    try:
        parsed = urlsplit(url)
        fits = parsed.scheme in ("http", "https") and bool(parsed.hostname) and parsed.port != 0
    except ValueError:
        fits = False
    if not fits:
        raise ValueError("type the URL of a collector, as in http://collector:4318")
    return url.rstrip("/")


def _pairs(text: SecretStr) -> SecretStr:
    if not all("=" in pair for pair in text.get_secret_value().split(",") if pair.strip()):
        raise ValueError("type name=value, with a comma between two of them")
    return text


Lower = BeforeValidator(lambda value: str(value).strip().lower())
Pairs = Annotated[SecretStr, AfterValidator(_pairs)]
Switch = Annotated[Literal["otlp", "none"], Lower]


class Settings(RoomSettings):
    """Where to send what, by the standard variables.

    https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/; those that are not here are read
    by the SDK itself.
    """

    metrics_port: Annotated[int, Field(ge=0, le=65_535)] = 9464
    otel_exporter_otlp_endpoint: Annotated[
        Annotated[str, AfterValidator(_address)] | None,
        OrOff,
        RealInProduction("http://collector.internal:4318", optional=True),
    ] = None
    otel_exporter_otlp_headers: Pairs = SecretStr("")
    otel_exporter_otlp_protocol: Annotated[Literal["http/protobuf"], Lower] = "http/protobuf"
    otel_exporter_otlp_timeout: Annotated[float, Field(gt=0, le=60)] = 5
    otel_logs_exporter: Switch = "none"
    otel_metric_export_interval: Annotated[int, Field(ge=100)] = 15_000
    otel_metrics_exporter: Annotated[Literal["otlp", "prometheus", "none"], Lower] = "otlp"
    otel_resource_attributes: Pairs = SecretStr("")
    otel_sdk_disabled: bool = False
    otel_service_name: str = ""
    otel_traces_exporter: Switch = "otlp"
    otel_traces_sampler: Annotated[
        Literal[
            "always_off",
            "always_on",
            "parentbased_always_off",
            "parentbased_always_on",
            "parentbased_traceidratio",
            "traceidratio",
        ],
        Lower,
    ] = "parentbased_traceidratio"
    otel_traces_sampler_arg: Annotated[float, Field(ge=0, le=1)] | None = None

    @property
    def ratio(self) -> float:
        """The share of traces that begin here; in production a tenth, unless something else is said."""
        if self.otel_traces_sampler_arg is None:
            return 0.1 if self.environment == "production" else 1.0
        return self.otel_traces_sampler_arg

    def sends(self, signal: Literal["logs", "metrics", "traces"]) -> bool:
        """Whether a signal goes to the collector."""
        wanted = getattr(self, f"otel_{signal}_exporter") == "otlp"
        return wanted and self.otel_exporter_otlp_endpoint is not None and not self.otel_sdk_disabled

    def pairs(self, name: Literal["otel_exporter_otlp_headers", "otel_resource_attributes"]) -> dict[str, str]:
        """Read `a=1,b=2`, whose values may be percent-encoded."""
        given = (pair.partition("=") for pair in getattr(self, name).get_secret_value().split(",") if pair.strip())
        return {key.strip(): unquote(value.strip()) for key, _, value in given}


class Watch:
    """What the door asks at each request.

    Args:
        samples: Decides for traces; None where none are sent.
        requests: Counts; None where no metrics are wanted.
    """

    def __init__(self, samples: Callable[[Exchange], bool] | None, requests: "Requests | None") -> None:
        self.samples = samples
        self.requests = requests

    def begin(self, exchange: Exchange) -> None:
        """Count the request as active, and decide whether it is sampled."""
        if self.requests:
            self.requests.begin(exchange)
        if not self.samples:
            return
        exchange.sampled = exchange.scope["path"] not in QUIET and self.samples(exchange)
        if not exchange.sampled:  # what the request calls is not sampled either, and calls carry its trace id
            exchange.token = context.attach(_around(exchange))

    def finish(self, exchange: Exchange) -> None:
        """Count the request with its answer."""
        if exchange.token:
            context.detach(exchange.token)
        if self.requests:
            self.requests.finish(exchange)


class _Unsampled(NonRecordingSpan):
    """Stands for the request that runs just now: one for all of them, which makes their ids when somebody asks."""

    def get_span_context(self) -> SpanContext:
        exchange = current.get()
        trace_id = int(exchange.trace_id, 16) if exchange else 0
        return SpanContext(trace_id, trace_id & HALF or 1, False)


ALONE = set_span_in_context(_Unsampled(INVALID_SPAN_CONTEXT), NOWHERE)


def _around(exchange: Exchange) -> Context:
    """The context in which a request without a span of its own runs: its ids, and what the caller hands on."""
    if not exchange.parent_id:
        return ALONE
    handed: dict[bytes, list[str]] = {b"baggage": [], b"tracestate": []}
    for name, value in exchange.scope["headers"]:
        if name in handed:
            handed[name].append(value.decode("latin-1"))
    state = TraceState.from_header(handed[b"tracestate"]) if handed[b"tracestate"] else None
    ids = int(exchange.trace_id, 16), int(exchange.parent_id, 16)
    span = NonRecordingSpan(SpanContext(*ids, True, None, state))
    baggage = {"baggage": ",".join(handed[b"baggage"])}
    return set_span_in_context(span, BAGGAGE.extract(baggage, NOWHERE) if baggage["baggage"] else NOWHERE)


def sampler(kind: str, ratio: float) -> Callable[[Exchange], bool]:
    """What the SDK's sampler of that name decides, without the objects that it makes for each request.

    https://opentelemetry.io/docs/specs/otel/trace/sdk/#built-in-samplers

    Args:
        kind: As in OTEL_TRACES_SAMPLER.
        ratio: The share of traces, where it takes a share.
    """
    share = {"always_off": 0.0, "always_on": 1.0}.get(kind.removeprefix("parentbased_"), ratio)
    bound = round(share * (HALF + 1))
    follows = kind.startswith("parentbased_")

    def samples(exchange: Exchange) -> bool:
        if follows and exchange.parent_id:
            return exchange.parent_sampled
        return int(exchange.trace_id, 16) & HALF < bound

    return samples


def begin(exchange: Exchange) -> None:
    """See a request come."""
    if watch := exchange.state.telemetry:
        watch.begin(exchange)


def respond(exchange: Exchange, headers: list[tuple[bytes, bytes]]) -> None:
    """Give the span its route, which is known by now: joined over mounts, as instrumentations do not."""
    if exchange.span and (route := exchange.route):
        exchange.span.set_attribute("http.route", route)
        exchange.span.update_name(f"{exchange.method.replace('_OTHER', 'HTTP')} {route}")


def finish(exchange: Exchange) -> None:
    """See it answered."""
    if watch := exchange.state.telemetry:
        watch.finish(exchange)


@asynccontextmanager
async def lifespan(app: FastAPI, settings: RoomSettings) -> AsyncIterator[None]:
    """Build what the settings ask for: in the process that serves, so that workers share no thread, no connection."""
    mine, state = part(settings, Settings), state_of(app)
    prometheus = mine.otel_metrics_exporter == "prometheus" and not mine.otel_sdk_disabled
    watched = state.spans and not mine.otel_sdk_disabled
    if not (prometheus or watched or mine.sends("traces") or mine.sends("metrics") or mine.sends("logs")):
        yield
        return
    sdk = import_module(".telemetry_sdk", __package__)
    parts = sdk.build(app, mine, state.spans if watched else [])
    if parts.tracers:
        trace.set_tracer_provider(parts.tracers)
        import_module(".telemetry_http", __package__).instrument(app, parts.tracers)
        if state.database:
            state.database.trace(parts.tracers)
    if parts.lines:
        state.lines.append(parts.lines)
    requests = lag = None
    if parts.meters:
        metrics.set_meter_provider(parts.meters)
        meters = import_module(".telemetry_metrics", __package__)
        requests, lag = meters.install(parts.meters, state)
    samples = sampler(mine.otel_traces_sampler, mine.ratio) if parts.tracers else None
    state.telemetry = Watch(samples, requests)
    state.flushes += parts.flushes
    watching = asyncio.create_task(lag.watch()) if lag else None
    yield
    state.telemetry = None
    if watching:
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching
