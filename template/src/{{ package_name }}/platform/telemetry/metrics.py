"""The metrics of the service: names, units and attributes here are what alerts and dashboards are written against.

After https://opentelemetry.io/docs/specs/semconv/; few on purpose, since each costs storage in every instance.
"""

import asyncio
import os
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from opentelemetry.context import Context
from opentelemetry.metrics import CallbackOptions, Histogram, Meter, MeterProvider, Observation
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, set_span_in_context

from ..state import PROBES, Database, RequestContext, Secrets, State

BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)  # seconds
TICK = 0.25  # seconds between two looks at the event loop
PROC = Path("/proc/self")
TOGETHER = 256  # durations of a series that are recorded at once
Found = Iterable[Observation]


@dataclass(slots=True)
class _Measured:
    """As much of a measurement as a histogram and its exemplars read."""

    value: float
    time_unix_nano: int = 0
    attributes: Mapping[str, Any] | None = None
    context: Context | None = None


class Series:
    """One series of a histogram.

    The SDK validates, copies, sorts and hashes the attributes of each record, which costs a request more than all of
    the door: 16 us of 110 with SDK 1.45. A series knows its place, where the SDK still has such places, and goes there
    with many at once.

    Args:
        histogram: Of which it is one series.
        attributes: Which.
    """

    def __init__(self, histogram: Histogram, attributes: dict[str, Any]) -> None:
        self.histogram = histogram
        self.attributes = attributes
        self.places: list[Callable[[Any, bool], None]] = [self._seek]
        self.waiting: deque[float] = deque()

    def add(self, seconds: float) -> None:
        """Record one, soon."""
        self.waiting.append(seconds)
        if len(self.waiting) >= TOGETHER:
            self.settle()

    def settle(self) -> None:
        """Record what waits; the thread that exports may do so at the same time."""
        measured = _Measured(0)
        with suppress(IndexError):
            while True:
                measured.value = self.waiting.popleft()
                for place in self.places:
                    place(measured, False)

    def show(self, seconds: float, trace_id: str, span_id: str) -> None:
        """Record one as an exemplar: it leads from the histogram to the trace behind it."""
        measured = _Measured(seconds, time.time_ns(), self.attributes, _around(trace_id, span_id))
        for place in self.places:
            place(measured, True)

    def _seek(self, measured: _Measured, exemplar: bool) -> None:
        """Record the first one in the public way, which makes the places."""
        self.histogram.record(measured.value, self.attributes, measured.context)
        self.places = _places(self.histogram, self.attributes) or self.places


def _around(trace_id: str, span_id: str) -> Context:
    flags = TraceFlags(TraceFlags.SAMPLED)
    span = NonRecordingSpan(SpanContext(int(trace_id, 16), int(span_id, 16), is_remote=False, trace_flags=flags))
    return set_span_in_context(span)


def _places(histogram: Any, attributes: dict[str, Any]) -> list[Callable[[Any, bool], None]]:
    try:
        from opentelemetry.sdk.metrics._internal._view_instrument_match import _hash_attributes

        readers = histogram._measurement_consumer._reader_storages.values()
        matches = [match for reader in readers for match in reader._get_or_init_view_instrument_match(histogram)]
        key = _hash_attributes(attributes)
        return [match._attributes_aggregation[key].aggregate for match in matches]
    except (AttributeError, ImportError, KeyError):
        return []


class Requests:
    """Counts and times HTTP requests; probes are no traffic, and the length of a WebSocket is no latency."""

    def __init__(self, meter: Meter) -> None:
        self.duration = meter.create_histogram(
            "http.server.request.duration",
            unit="s",
            description="Duration of HTTP server requests.",
            explicit_bucket_boundaries_advisory=BUCKETS,
        )
        self.active: Counter[tuple[str, str]] = Counter()
        meter.create_observable_up_down_counter(
            "http.server.active_requests",
            [self._active],
            unit="{request}",
            description="Number of active HTTP server requests.",
        )
        self.series: dict[tuple[str | None, str, str, int, str], Series] = {}

    def begin(self, context: RequestContext) -> None:
        """See a request come."""
        if context.scope["type"] == "http" and context.scope["path"] not in PROBES:
            scheme = "https" if context.scope["scheme"] == "https" else "http"  # a proxy may say anything
            context.counted = (context.method, scheme)
            self.active[context.counted] += 1

    def finish(self, context: RequestContext) -> None:
        """See it answered."""
        if not context.counted:
            return
        self.active[context.counted] -= 1
        status = context.status or 500
        error = "" if status < 500 else type(context.error).__qualname__ if context.error else str(status)
        key = (context.route, *context.counted, status, error)
        series = self.series.get(key)
        if series is None:
            series = self.series[key] = Series(self.duration, _attributes(*key))
        if context.span_id:
            series.show(context.seconds, context.trace_id, context.span_id)
        else:
            series.add(context.seconds)

    def _active(self, options: CallbackOptions) -> Found:
        for series in list(self.series.values()):
            series.settle()  # the SDK asks here first, and only then takes the histogram
        for (method, scheme), count in list(self.active.items()):
            yield Observation(count, {"http.request.method": method, "url.scheme": scheme})


def _attributes(route: str | None, method: str, scheme: str, status: int, error: str) -> dict[str, Any]:
    found: dict[str, Any] = {
        "http.request.method": method,
        "http.response.status_code": status,
        "url.scheme": scheme,
    }
    return found | ({"http.route": route} if route else {}) | ({"error.type": error} if error else {})


class Lag:
    """How long the event loop was late: the time that one blocking call takes from all requests."""

    def __init__(self, meter: Meter) -> None:
        self.longest = 0.0
        meter.create_observable_gauge(
            "process.event_loop.lag",
            [self._look],
            unit="s",
            description="Longest delay of the event loop since the last look.",
        )

    def _look(self, options: CallbackOptions) -> Found:
        longest, self.longest = self.longest, 0.0
        yield Observation(longest)

    async def watch(self) -> None:
        """Measure until cancelled."""
        while True:
            due = time.monotonic() + TICK
            await asyncio.sleep(TICK)
            self.longest = max(self.longest, time.monotonic() - due)


def install(provider: MeterProvider, state: State) -> tuple[Requests, Lag]:
    """Make the instruments of this process."""
    meter = provider.get_meter(__name__)
    meter.create_observable_counter("process.cpu.time", [_cpu], unit="s", description="CPU seconds by mode.")
    if PROC.is_dir():  # Linux; elsewhere a developer does without
        meter.create_observable_up_down_counter(
            "process.memory.usage", [_memory], unit="By", description="Physical memory in use."
        )
        meter.create_observable_up_down_counter(
            "process.unix.file_descriptor.count", [_files], unit="{file_descriptor}", description="Open files."
        )
    if state.database:
        _pool(meter, state.database)
    if state.secrets:
        _leases(meter, state.secrets)
    return Requests(meter), Lag(meter)


def _cpu(options: CallbackOptions) -> Found:
    times = os.times()
    yield Observation(times.user, {"cpu.mode": "user"})
    yield Observation(times.system, {"cpu.mode": "system"})


def _memory(options: CallbackOptions) -> Found:
    resident = int((PROC / "statm").read_text().split()[1])  # in pages: proc(5)
    yield Observation(resident * os.sysconf("SC_PAGE_SIZE"))


def _files(options: CallbackOptions) -> Found:
    yield Observation(len(os.listdir(PROC / "fd")))


def _pool(meter: Meter, database: Database) -> None:
    name = {"db.client.connection.pool.name": "db"}

    def count(options: CallbackOptions) -> Found:
        idle, used, _ = database.connections()
        yield Observation(idle, {**name, "db.client.connection.state": "idle"})
        yield Observation(used, {**name, "db.client.connection.state": "used"})

    def most(options: CallbackOptions) -> Found:
        yield Observation(database.connections()[2], name)

    meter.create_observable_up_down_counter(
        "db.client.connection.count", [count], unit="{connection}", description="Connections of the pool by state."
    )
    meter.create_observable_up_down_counter(
        "db.client.connection.max", [most], unit="{connection}", description="Connections that the pool may have."
    )


def _leases(meter: Meter, secrets: Secrets) -> None:
    def observe(which: int) -> Callable[[CallbackOptions], Found]:
        return lambda options: [Observation(each[which], {"lease": name}) for name, each in secrets.leases().items()]

    for which, name, description in (
        (0, "secrets.lease.remaining", "Time until a lease ends, if nobody renews it."),
        (1, "secrets.lease.duration", "Time for which a lease was given at first."),
    ):
        meter.create_observable_gauge(name, [observe(which)], unit="s", description=description)
