"""The metrics of the service; alerts and dashboards depend on the names, units and attributes here.

They follow https://opentelemetry.io/docs/specs/semconv/. They are few, because each costs storage for every instance.
"""

import asyncio
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation

from ..state import PROBES, Metric, RequestContext, State
from .durations import Durations, SeriesKey

TICK_SECONDS = 0.25  # between two measurements of the event loop
PROC = Path("/proc/self")
Values = Iterator[tuple[float, dict[str, str]]]


class Requests:
    """Counts and times HTTP requests, without probes and WebSockets: they would distort rate and latency."""

    def __init__(self, durations: Durations) -> None:
        self.durations = durations
        self.active: Counter[tuple[str, str]] = Counter()

    def begin(self, context: RequestContext) -> None:
        """Count a request as active."""
        if context.scope["type"] == "http" and context.path not in PROBES:
            scheme = "https" if context.scope["scheme"] == "https" else "http"  # a proxy can send any value
            counted = context.notes[Requests] = context.method, scheme
            self.active[counted] += 1

    def finish(self, context: RequestContext) -> None:
        """Count a finished request."""
        counted: tuple[str, str] | None = context.notes.get(Requests)
        if not counted:
            return
        self.active[counted] -= 1
        status = context.status or 500
        error = "" if status < 500 else type(context.error).__qualname__ if context.error else str(status)
        series = self.durations.of(SeriesKey(context.route, *counted, status, error))
        series.record(context.seconds, context.trace_id, context.span_id)

    def read(self) -> Values:
        """The number of active requests."""
        for (method, scheme), count in list(self.active.items()):
            yield count, {"http.request.method": method, "url.scheme": scheme}


class EventLoopLag:
    """The delay of the event loop: the time for which one blocking call stops all requests."""

    longest = 0.0

    def read(self) -> Values:
        """The longest delay since the last collection."""
        longest, self.longest = self.longest, 0.0
        yield longest, {}

    async def measure(self) -> None:
        """Measure until cancelled."""
        while True:
            due = time.monotonic() + TICK_SECONDS
            await asyncio.sleep(TICK_SECONDS)
            self.longest = max(self.longest, time.monotonic() - due)


def install(provider: MeterProvider, state: State, durations: Durations) -> tuple[Requests, EventLoopLag]:
    """Create the instruments of this process."""
    requests, lag = Requests(durations), EventLoopLag()
    active = "http.server.active_requests", "{request}", "Number of active HTTP server requests."
    metrics = [
        Metric(*active, requests.read, "up_down_counter"),
        Metric("process.cpu.time", "s", "CPU seconds by mode.", _cpu, "counter"),
        Metric("process.event_loop.lag", "s", "Longest delay of the event loop since the last collection.", lag.read),
        *state.metrics,
    ]
    if PROC.is_dir():  # Linux only; developers on other systems do without
        files = "process.unix.file_descriptor.count", "{file_descriptor}", "Open files."
        metrics.append(Metric("process.memory.usage", "By", "Physical memory in use.", _memory, "up_down_counter"))
        metrics.append(Metric(*files, _files, "up_down_counter"))
    meter = provider.get_meter(__name__)
    for metric in metrics:
        create: Any = getattr(meter, f"create_observable_{metric.kind}")
        create(metric.name, [_observer(metric)], unit=metric.unit, description=metric.description)
    return requests, lag


def _observer(metric: Metric) -> Callable[[CallbackOptions], list[Observation]]:
    return lambda options: [Observation(value, attributes) for value, attributes in metric.read()]


def _cpu() -> Values:
    times = os.times()
    yield times.user, {"cpu.mode": "user"}
    yield times.system, {"cpu.mode": "system"}


def _memory() -> Values:
    resident = int((PROC / "statm").read_text().split()[1])  # in pages: proc(5)
    yield resident * os.sysconf("SC_PAGE_SIZE"), {}


def _files() -> Values:
    yield len(os.listdir(PROC / "fd")), {}
