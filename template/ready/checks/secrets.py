"""Secrets: kept where they can be rotated, renewed in time, and in no answer."""

import json
import re
import secrets
from typing import Any
from urllib.parse import quote

from ..engine import Gap, NotApplicable, Probe, check
from ..far import ask

LEFT = 0.25  # of a lease; it is renewed at two thirds, give or take a tenth of that
# After https://developer.hashicorp.com/vault/docs/concepts/tokens#token-prefixes and
# https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_identifiers.html#identifiers-unique-ids.
FORMS = {
    "a token of Vault": r"\b(?:hv[brs]\.[\w-]{20,}|s\.[A-Za-z0-9]{24}\b)",
    "an access key of AWS": r"\bA[KS]IA[A-Z0-9]{16}\b",
    "a login in an address": r"\b[a-z][a-z0-9+.-]*://[^\s/\"'<>@]+@[\w[]",
    "a private key": r"-----BEGIN [A-Z ]*PRIVATE KEY-----",
}
PAGES = ("/version", "/readyz", "/livez", "/docs", "/openapi.json")


@check("secrets")
async def backend(probe: Probe) -> str:
    """Secrets come from where they can be rotated, and are current."""
    part = await _part(probe)
    if part is None:
        raise Gap("/readyz names no secrets", "let the room secrets stand in main.py, or waive this where it is meant")
    if not part["ready"]:
        raise Gap(part["evidence"], "look at the log for `secrets`, then at what SECRETS_BACKEND names")
    if "in the environment" not in part["evidence"]:
        return f"/readyz says: {part['evidence']}"
    if not probe.production:
        raise NotApplicable("because only production needs more than the environment")
    raise Gap("they stand in the environment: to rotate one is to restart", "set SECRETS_BACKEND: docs/secrets.md")


@check("secrets")
async def silent(probe: Probe) -> str:
    """No answer holds a secret: none of the service's own, and none that a caller sent."""
    planted = secrets.token_hex(16)
    sent = {"Authorization": f"Bearer {planted}", "Cookie": f"session={planted}"}
    answers = [await probe.client.get(page, headers=sent) for page in PAGES]
    answers.append(await probe.client.get(f"/{probe.marker}?token={planted}", headers=sent))
    if probe.config.probe.write:  # no object, so nothing is written
        answers.append(await probe.client.post(probe.config.probe.write.path, headers=sent, json=[planted]))
    for answer in answers:
        text = f"{answer.headers}{answer.text}"
        if planted in text:
            raise Gap(f"{answer.url.path} repeats what was sent to it", "answer errors by platform/problems.py")
        if found := next((name for name, form in FORMS.items() if re.search(form, text)), None):
            raise Gap(f"{answer.url.path} holds {found}", "take it out of the answer, and rotate it: docs/secrets.md")
    return f"{len(answers)} answers hold no token, no login and nothing of what was sent"


@check("secrets")
async def leases(probe: Probe) -> str:
    """What was lent is renewed in time."""
    part, end = await _part(probe), probe.config.far_ends.metrics
    if part is None or (part["ready"] and " of Vault " not in part["evidence"]):
        raise NotApplicable("because nothing is lent where there is no Vault")
    if end is None and not probe.production:
        raise NotApplicable("because only production needs a place where metrics are kept, and none is named")
    if end is None:
        raise Gap("no place is named where metrics are kept", 'add to ready.toml: [far_ends.metrics] url = "https://…"')
    job = f'{{job=~"(.+/)?{probe.about["name"]}"}}'
    query = f"min by (lease) (secrets_lease_remaining_seconds{job} / secrets_lease_duration_seconds{job})"
    series = json.loads(await ask(end, f"/api/v1/query?query={quote(query)}"))["data"]["result"]
    left = {each["metric"]["lease"]: float(each["value"][1]) for each in series}
    if not left:
        raise Gap(f"no lease of {probe.about['name']} is known there", "look at OTEL_METRICS_EXPORTER of the service")
    name = min(left, key=lambda each: left[each])
    if left[name] < LEFT:
        step = "look at the log of `secrets`, then at Vault itself: docs/runbook.md, SecretsLeaseRunsOut"
        raise Gap(f"of the lease {name} {left[name]:.0%} are left, it should long be renewed", step)
    return f"leases: {len(left)}; of the shortest, {name}, {left[name]:.0%} are left"


async def _part(probe: Probe) -> dict[str, Any] | None:
    part: dict[str, Any] | None = (await probe.client.get("/readyz")).json().get("parts", {}).get("secrets")
    return part
