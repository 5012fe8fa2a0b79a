"""Secrets: in no response; where they are stored and whether they are renewed is what the service says."""

import re
import secrets
from typing import Any

from ..engine import CannotCheck, Claimed, Gap, NotApplicable, Probe, check
from ..far import of_service, query, required

MIN_LEASE_SHARE = 0.25  # must be left: renewal is due at two thirds, give or take a tenth of that
# After https://developer.hashicorp.com/vault/docs/concepts/tokens#token-prefixes and
# https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_identifiers.html#identifiers-unique-ids.
SECRET_PATTERNS = {
    "a Vault token": r"\b(?:hv[brs]\.[\w-]{20,}|s\.[A-Za-z0-9]{24}\b)",
    "an AWS access key": r"\bA[KS]IA[A-Z0-9]{16}\b",
    "a login in a URL": r"\b[a-z][a-z0-9+.-]*://[^\s/\"'<>@]+@[\w[]",
    "a private key": r"-----BEGIN [A-Z ]*PRIVATE KEY-----",
}
PAGES = ("/version", "/readyz", "/livez", "/docs", "/openapi.json")


@check("secrets")
async def backend(probe: Probe) -> str:
    """Secrets come from a store that can rotate them, and are current."""
    part = await _part(probe)
    if part is None:
        raise Gap("/readyz lists no secrets", "do not leave out the room secrets in main.py, or waive this check")
    if not part["ready"]:
        raise Gap(part["evidence"], "check the log of `secrets`, then the store that SECRETS_BACKEND names")
    if "in the environment" not in part["evidence"]:
        raise Claimed(part["evidence"])
    if not probe.production:
        raise NotApplicable("because only production needs a secrets store")
    raise Gap("they are in the environment: rotating one needs a restart", "set SECRETS_BACKEND: docs/secrets.md")


@check("secrets")
async def silent(probe: Probe) -> str:
    """Public pages and errors contain no secret: neither the service's own, nor one that a caller sent."""
    planted = secrets.token_hex(16)
    sent = {"Authorization": f"Bearer {planted}", "Cookie": f"session={planted}"}
    responses = [await probe.client.get(page, headers=sent) for page in PAGES]
    responses.append(await probe.client.get(f"/{probe.marker}?token={planted}", headers=sent))
    if probe.config.probe.write:  # not an object, so nothing is written
        responses.append(await probe.client.post(probe.config.probe.write.path, headers=sent, json=[planted]))
    for response in responses:
        if response.status_code >= 500 and response.url.path != "/readyz":
            raise CannotCheck(f"{response.url.path} returned {response.status_code}", "check the log of the service")
        text = f"{response.headers}{response.text}"
        if planted in text:
            raise Gap(f"{response.url.path} repeats a secret of the request", "let platform/problems.py handle errors")
        if found := next((name for name, pattern in SECRET_PATTERNS.items() if re.search(pattern, text)), None):
            raise Gap(f"{response.url.path} contains {found}", "remove it there, and rotate it: docs/secrets.md")
    return f"{len(responses)} responses contain no known form of a token, key or login, and no secret that was sent"


@check("secrets")
async def leases(probe: Probe) -> str:
    """Leased secrets are renewed in time."""
    part = await _part(probe)
    if part is None or (part["ready"] and " of Vault " not in part["evidence"]):
        raise NotApplicable("because only Vault leases secrets")
    end = required(probe, "metrics", "metrics store")
    job = of_service(probe.about)
    ratio = f"min by (lease) (secrets_lease_remaining_seconds{job} / secrets_lease_duration_seconds{job})"
    series = await query(end, ratio)
    left = {each["metric"]["lease"]: float(each["value"][1]) for each in series}
    if not left:
        raise Gap(f"no lease of {probe.about['name']} was found", "check OTEL_METRICS_EXPORTER of the service")
    name = min(left, key=lambda each: left[each])
    if left[name] < MIN_LEASE_SHARE:
        step = "check the log of `secrets`, then Vault itself: docs/runbook.md, SecretsLeaseRunsOut"
        raise Gap(f"the lease {name} has {left[name]:.0%} of its time left, renewal is overdue", step)
    raise Claimed(f"leases: {len(left)}; the shortest, {name}, has {left[name]:.0%} of its time left")


async def _part(probe: Probe) -> dict[str, Any] | None:
    part: dict[str, Any] | None = (await probe.client.get("/readyz")).json().get("parts", {}).get("secrets")
    return part
