"""Observability: what the service says of a request arrives where people will look for it."""

import asyncio
import re
import secrets
import time

from ..config import FarEnd
from ..engine import Gap, NotApplicable, Probe, check
from ..far import find, total

ARRIVE = 20.0  # seconds for a trace
SCRAPE = 70.0  # seconds for a metric: Prometheus looks once a minute where nobody has told it otherwise
SENT = 3  # requests to be counted
SPAN = re.compile(r'"(?:spanI[dD]|id)": ?"([^"]+)"')
COUNT = "http_server_request_duration_seconds_count"


@check("observability", seconds=ARRIVE + 10)
async def traces(probe: Probe) -> str:
    """The trace of a request is found where traces are kept, under the id that the caller gave it."""
    trace_id = secrets.token_hex(16)
    path = probe.config.probe.read or "/version"
    caller = {"traceparent": f"00-{trace_id}-{secrets.token_hex(8)}-01"}
    await probe.client.get(path, headers=caller)
    end, where = probe.config.far_ends.traces, f"/api/traces/{trace_id}"  # as Jaeger and Tempo have it
    if end is None and probe.about["environment"] == "local":
        end, where = FarEnd(url=str(probe.client.base_url)), f"/__dev__/data?trace={trace_id}"
    if end is None:
        raise Gap("no place is named where traces are kept", 'add to ready.toml: [far_ends.traces] url = "https://…"')
    found = await find(end, where, trace_id, ARRIVE)
    spans = set(SPAN.findall(found[0])) if found else set()
    if not found or not spans:
        step = "look at OTEL_EXPORTER_OTLP_ENDPOINT and OTEL_TRACES_SAMPLER of the service, then at the collector's log"
        raise Gap(f"the trace {trace_id} of {path} did not arrive within {ARRIVE:g} s", step)
    place = f"{end.url.rstrip('/')}{where.partition('?')[0].removesuffix('/data')}"
    return f"the trace of {path} was found at {place} after {found[1]:.1f} s, spans: {len(spans)}"


@check("observability", seconds=SCRAPE + 20)
async def metrics(probe: Probe) -> str:
    """Requests are counted where metrics are kept."""
    end = probe.config.far_ends.metrics
    if end is None and not probe.production:
        raise NotApplicable("because only production needs a place where metrics are kept, and none is named")
    if end is None:
        raise Gap("no place is named where metrics are kept", 'add to ready.toml: [far_ends.metrics] url = "https://…"')
    before = await total(end, COUNT)
    for _ in range(SENT):
        await probe.client.get(probe.config.probe.read or "/version")
    began = time.monotonic()
    while (after := await total(end, COUNT)) < before + SENT:
        if time.monotonic() > began + SCRAPE:
            step = "look at OTEL_METRICS_EXPORTER of the service and at the targets of Prometheus"
            raise Gap(f"{SENT} requests were sent, the count went from {before:g} to {after:g} in {SCRAPE:g} s", step)
        await asyncio.sleep(1)
    return f"{SENT} requests were sent, the count went from {before:g} to {after:g} in {time.monotonic() - began:.1f} s"
