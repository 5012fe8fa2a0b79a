"""The metrics of the service: names, units and attributes here are what alerts and dashboards are written against.

After https://opentelemetry.io/docs/specs/semconv/; few on purpose, since each costs storage in every instance.
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
from .durations import Durations, Kind

TICK = 0.25  # seconds between two looks at the event loop
PROC = Path("/proc/self")
Found = Iterator[tuple[float, dict[str, str]]]


class Requests:
    """Counts and times HTTP requests; probes are no traffic, and the length of a WebSocket is no latency."""

    def __init__(self, durations: Durations) -> None:
        self.durations = durations
        self.active: Counter[tuple[str, str]] = Counter()

    def begin(self, context: RequestContext) -> None:
        """See a request come."""
        if context.scope["type"] == "http" and context.scope["path"] not in PROBES:
            scheme = "https" if context.scope["scheme"] == "https" else "http"  # a proxy may say anything
            counted = context.notes[Requests] = context.method, scheme
            self.active[counted] += 1

    def finish(self, context: RequestContext) -> None:
        """See it answered."""
        counted: tuple[str, str] | None = context.notes.get(Requests)
        if not counted:
            return
        self.active[counted] -= 1
        status = context.status or 500
        error = "" if status < 500 else type(context.error).__qualname__ if context.error else str(status)
        series = self.durations.of(Kind(context.route, *counted, status, error))
        series.record(context.seconds, context.trace_id, context.span_id)

    def read(self) -> Found:
        """How many are active."""
        for (method, scheme), count in list(self.active.items()):
            yield count, {"http.request.method": method, "url.scheme": scheme}


class Lag:
    """How long the event loop was late: the time that one blocking call takes from all requests."""

    longest = 0.0

    def read(self) -> Found:
        """The longest delay since the last time."""
        longest, self.longest = self.longest, 0.0
        yield longest, {}

    async def watch(self) -> None:
        """Measure until cancelled."""
        while True:
            due = time.monotonic() + TICK
            await asyncio.sleep(TICK)
            self.longest = max(self.longest, time.monotonic() - due)


def install(provider: MeterProvider, state: State, durations: Durations) -> tuple[Requests, Lag]:
    """Make the instruments of this process."""
    requests, lag = Requests(durations), Lag()
    active = "http.server.active_requests", "{request}", "Number of active HTTP server requests."
    metrics = [
        Metric(*active, requests.read, "up_down_counter"),
        Metric("process.cpu.time", "s", "CPU seconds by mode.", _cpu, "counter"),
        Metric("process.event_loop.lag", "s", "Longest delay of the event loop since the last look.", lag.read),
        *state.metrics,
    ]
    if PROC.is_dir():  # Linux; elsewhere a developer does without
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


def _cpu() -> Found:
    times = os.times()
    yield times.user, {"cpu.mode": "user"}
    yield times.system, {"cpu.mode": "system"}


def _memory() -> Found:
    resident = int((PROC / "statm").read_text().split()[1])  # in pages: proc(5)
    yield resident * os.sysconf("SC_PAGE_SIZE"), {}


def _files() -> Found:
    yield len(os.listdir(PROC / "fd")), {}
