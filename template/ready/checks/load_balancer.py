"""Load balancing, seen from outside: several instances respond, forged headers and old TLS have no effect."""

import asyncio
import json
import secrets
import ssl
from collections.abc import Iterator
from typing import Any

from .. import project
from ..client import open_client
from ..engine import CannotCheck, Gap, NotApplicable, Probe, check
from ..far import find, required

ARRIVAL_SECONDS = 20.0  # until a trace is in the trace store
REQUESTS = 8  # one of two instances would miss all of them once in 128 runs of a balancer that chooses at random
FORGED = "192.0.2.77"  # of no client: RFC 5737
ADDRESS, INSTANCE, SERVICE = "client.address", "service.instance.id", "service.name"
TRACE_STEP = "check what observability.traces says"


@check("scaling", seconds=ARRIVAL_SECONDS + 20)
async def balanced(probe: Probe) -> str:
    """A load balancer spreads requests over several instances."""
    name = project.name() or probe.about["name"]
    traces = await _traces(probe, REQUESTS)
    found = {each[INSTANCE] for trace in traces for each in _attributes(trace) if each.get(SERVICE) == name} - {None}
    if not found:
        raise CannotCheck(f"no trace names the {INSTANCE} of {name}", TRACE_STEP)
    if len(found) == 1:
        step = "start a second instance, and add it to the servers of the load balancer"
        raise Gap(f"{len(traces)} requests: all were served by the instance {found.pop()}", step)
    return f"{len(traces)} requests were served by {len(found)} instances"


@check("scaling", seconds=ARRIVAL_SECONDS + 20)
async def clients(probe: Probe) -> str:
    """The address of a client cannot be forged by X-Forwarded-For."""
    (trace,) = await _traces(probe, 1, {"X-Forwarded-For": FORGED})
    found = {str(each[ADDRESS]) for each in _attributes(trace) if each.get(ADDRESS)}
    if not found:
        raise CannotCheck(f"the trace has no {ADDRESS}", TRACE_STEP)
    if FORGED in found:
        step = "let the load balancer overwrite X-Forwarded-For, and list only it in FORWARDED_ALLOW_IPS"
        raise Gap(f"X-Forwarded-For: {FORGED} became the client's address", step)
    return f"X-Forwarded-For: {FORGED} was ignored, the trace has {', '.join(sorted(found))}"


@check("scaling")
async def request_ids(probe: Probe) -> str:
    """The id of a request is kept, unless it could forge a line of the log."""
    bad = f'{probe.marker}","forged":"{"x" * 200}'
    kept, replaced = [
        (await probe.client.get("/version", headers={"X-Request-ID": sent})).headers.get("x-request-id", "")
        for sent in (probe.marker, bad)
    ]
    step = "let the load balancer pass valid ids on and replace others, as platform/http.py does"
    if kept != probe.marker:
        raise Gap(f"the id {probe.marker} came back as {kept or 'nothing'}", step)
    if not replaced or "forged" in replaced:
        raise Gap(f"an id with quotes came back {'unchanged' if replaced else 'without any'}", step)
    return f"the id {kept} came back, and one with quotes became {replaced}"


@check("scaling")
async def tls(probe: Probe) -> str:
    """Versions of TLS before 1.2 are refused."""
    url = probe.client.base_url
    if url.scheme != "https":
        raise NotApplicable("because this URL is not encrypted, see security.transport")
    new, old = ssl.create_default_context(), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname, old.verify_mode = False, ssl.CERT_NONE  # the version is all that it is asked for
    old.set_ciphers("ALL:@SECLEVEL=0")
    old.minimum_version, old.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
    spoken = await _handshake(url.host, url.port or 443, new)
    try:
        accepted = await _handshake(url.host, url.port or 443, old)
    except OSError as error:
        if "AVAILABLE" in str(getattr(error, "reason", "")):  # no protocols, or no ciphers
            raise CannotCheck("this machine's OpenSSL cannot speak TLSv1.1", "check from another machine") from None
        return f"{spoken} was accepted, TLSv1.1 and older were refused"
    raise Gap(f"{accepted} was accepted", "allow TLS 1.2 and 1.3 only where TLS ends")


async def _handshake(host: str, port: int, context: ssl.SSLContext) -> str:
    _, writer = await asyncio.open_connection(host, port, ssl=context)
    version: str = writer.get_extra_info("ssl_object").version()
    writer.close()
    return version


async def _traces(probe: Probe, count: int, headers: dict[str, str] | None = None) -> list[Any]:
    """Send requests over a connection each, as some balancers choose once per connection, and return their traces."""
    if not probe.production:
        raise NotApplicable("because only production needs a load balancer")
    end, ids = required(probe, "traces", "trace store"), [secrets.token_hex(16) for _ in range(count)]
    async with open_client(str(probe.client.base_url), keepalive=0, timeout=10) as client:
        for each in ids:
            caller = {"traceparent": f"00-{each}-{secrets.token_hex(8)}-01", "X-Request-ID": probe.marker}
            await client.get("/version", headers={**caller, **(headers or {})})
    found = await asyncio.gather(*(find(end, f"/api/traces/{each}", INSTANCE, ARRIVAL_SECONDS) for each in ids))
    if missing := found.count(None):
        raise CannotCheck(f"{missing} of {count} traces did not arrive within {ARRIVAL_SECONDS:g} s", TRACE_STEP)
    return [json.loads(each[0]) for each in found if each]


def _attributes(node: Any) -> Iterator[dict[str, Any]]:
    """The attributes of each resource and span, however deep: Jaeger calls them tags, Tempo has an object per value."""
    if isinstance(node, dict):
        pairs = node.get("attributes") or node.get("tags") or []
        found = {each["key"]: each["value"] for each in pairs if isinstance(each, dict)}
        plain = {key: next(iter(value.values())) if isinstance(value, dict) else value for key, value in found.items()}
        if "serviceName" in node:
            plain[SERVICE] = node["serviceName"]
        yield {INSTANCE: None, **plain}
    for each in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from _attributes(each)
