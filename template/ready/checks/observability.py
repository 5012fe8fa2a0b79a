"""Observability: the traces and metrics of a request arrive where engineers search for them."""

import asyncio
import re
import secrets
import time

from ..config import FarEnd
from ..engine import Claimed, Gap, Probe, check
from ..far import fetch, find, of_service, required, total

ARRIVAL_SECONDS = 20.0  # until a trace is in the trace store
SETTLE_SECONDS = 1.0  # until the rest of the trace is there too: its spans are exported bit by bit
SCRAPE_SECONDS = 70.0  # until a metric arrives: by default Prometheus scrapes once a minute
REQUESTS = 3  # that a check sends and expects to be counted
SPAN = re.compile(r'"(?:spanI[dD]|id)": ?"([^"]+)"')
COUNT = "http_server_request_duration_seconds_count"


@check("observability", seconds=ARRIVAL_SECONDS + 10)
async def traces(probe: Probe) -> str:
    """The trace of a request is in the trace store, under the trace id that the caller sent."""
    trace_id = secrets.token_hex(16)
    path = probe.config.probe.read or "/version"
    end, where, wanted = probe.config.far_ends.traces, f"/api/traces/{trace_id}", trace_id  # Jaeger's path, and Tempo's
    if end is None and not probe.production and probe.about["environment"] == "local":
        end, where = FarEnd(url=str(probe.client.base_url)), f"/__dev__/data?trace={trace_id}"
        wanted = '"spans":[{'  # it knows the request before its spans
        await fetch(end, where)  # from now on it keeps this trace, whatever else arrives
    if end is None:
        raise Gap("ready.toml names no trace store", 'add [far_ends.traces] and below it url = "https://…"')
    await probe.client.get(path, headers={"traceparent": f"00-{trace_id}-{secrets.token_hex(8)}-01"})
    found = await find(end, where, wanted, ARRIVAL_SECONDS)
    if found:
        await asyncio.sleep(SETTLE_SECONDS)
    spans = set(SPAN.findall(await fetch(end, where))) if found else set()
    if not found or not spans:
        step = "check OTEL_EXPORTER_OTLP_ENDPOINT and OTEL_TRACES_SAMPLER of the service, then the collector's log"
        raise Gap(f"the trace {trace_id} of {path} did not arrive within {ARRIVAL_SECONDS:g} s", step)
    place = f"{end.url.rstrip('/')}{where.partition('?')[0].removesuffix('/data')}"
    seen = f"the trace of {path} was found at {place} after {found[1]:.1f} s, spans: {len(spans)}"
    if probe.config.far_ends.traces is None:  # the service showed it, no store did
        raise Claimed(seen)
    return seen


@check("observability", seconds=SCRAPE_SECONDS + 20)
async def metrics(probe: Probe) -> str:
    """The metrics store counts the requests of this service."""
    end = required(probe, "metrics", "metrics store")
    count = f"{COUNT}{of_service(probe.about)}"
    before = await total(end, count)
    for _ in range(REQUESTS):
        await probe.client.get(probe.config.probe.read or "/version")
    began = time.monotonic()
    while (after := await total(end, count)) < before + REQUESTS:
        if time.monotonic() > began + SCRAPE_SECONDS:
            step = "check OTEL_METRICS_EXPORTER of the service and the targets of Prometheus"
            raise Gap(f"{REQUESTS} requests: the count went from {before:g} to {after:g} in {SCRAPE_SECONDS:g} s", step)
        await asyncio.sleep(1)
    return f"{REQUESTS} requests: the count went from {before:g} to {after:g} in {time.monotonic() - began:.1f} s"
