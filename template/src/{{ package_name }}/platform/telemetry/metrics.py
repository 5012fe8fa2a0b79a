"""The metrics of the service: names, units and attributes here are what alerts and dashboards are written against.

After https://opentelemetry.io/docs/specs/semconv/; few on purpose, since each costs storage in every instance.
"""

import asyncio
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from opentelemetry.metrics import CallbackOptions, Meter, MeterProvider, Observation

from ..state import PROBES, Metric, RequestContext, State
from .durations import Durations, Kind

TICK = 0.25  # seconds between two looks at the event loop
PROC = Path("/proc/self")
Found = Iterable[Observation]


class Requests:
    """Counts and times HTTP requests; probes are no traffic, and the length of a WebSocket is no latency."""

    def __init__(self, meter: Meter, durations: Durations) -> None:
        self.durations = durations
        self.active: Counter[tuple[str, str]] = Counter()
        meter.create_observable_up_down_counter(
            "http.server.active_requests",
            [self._active],
            unit="{request}",
            description="Number of active HTTP server requests.",
        )

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

    def _active(self, options: CallbackOptions) -> Found:
        for (method, scheme), count in list(self.active.items()):
            yield Observation(count, {"http.request.method": method, "url.scheme": scheme})


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


def install(provider: MeterProvider, state: State, durations: Durations) -> tuple[Requests, Lag]:
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
    for metric in state.metrics:
        create: Any = getattr(meter, f"create_observable_{metric.kind}")
        create(metric.name, [_reader(metric)], unit=metric.unit, description=metric.description)
    return Requests(meter, durations), Lag(meter)


def _cpu(options: CallbackOptions) -> Found:
    times = os.times()
    yield Observation(times.user, {"cpu.mode": "user"})
    yield Observation(times.system, {"cpu.mode": "system"})


def _memory(options: CallbackOptions) -> Found:
    resident = int((PROC / "statm").read_text().split()[1])  # in pages: proc(5)
    yield Observation(resident * os.sysconf("SC_PAGE_SIZE"))


def _files(options: CallbackOptions) -> Found:
    yield Observation(len(os.listdir(PROC / "fd")))


def _reader(metric: Metric) -> Callable[[CallbackOptions], Found]:
    return lambda options: [Observation(value, attributes) for value, attributes in metric.read()]
