"""Error monitoring: a response reveals no internals and has the ids that find the error, which is in the tracker."""

import hashlib
import hmac
import secrets
import time

import httpx2
from pydantic import SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from ..engine import Gap, NotApplicable, Probe, check
from ..far import find, required
from ..project import has_room

ARRIVAL_SECONDS = 20.0  # until an error is in the tracker
KEY_STEP = (
    'run echo "READY_PROBE_KEY=$(openssl rand -hex 32)" >> .env and restart the service; '
    "elsewhere give the service and `ready` the same key"
)


class ProbeKey(BaseSettings):
    """The secret that the service and this check share."""

    model_config = SettingsConfigDict(env_file=".env", env_ignore_empty=True, extra="ignore")

    ready_probe_key: SecretStr | None = None


@check("errors")
async def problems(probe: Probe) -> str:
    """An error is a problem document (RFC 9457) with the ids of its request."""
    trace = secrets.token_hex(16)
    response = await probe.client.get(
        f"/{probe.marker}", headers={"traceparent": f"00-{trace}-{secrets.token_hex(8)}-00"}
    )
    return _document(response, 404, probe.marker, trace)


@check("errors", effect="writes")
async def raised(probe: Probe) -> str:
    """The response to an unexpected error reveals no internals."""
    response, _ = await _raise(probe, probe.marker)
    if response.status_code == 404:
        why = "READY_PROBE_KEY or the clock differs there, or several runs used it within a minute"
        raise Gap(f"{response.url.path} returned 404: {why}", KEY_STEP)
    seen = _document(response, 500, probe.marker, "")
    internals = [word for word in ("Traceback", "ProbeError", ".py") if word in response.text]
    if internals:
        raise Gap(f"the response reveals {', '.join(internals)}", "let platform/problems.py handle errors")
    again = await probe.client.send(response.request)
    if again.status_code != 404:
        raise Gap(f"a signature was accepted twice ({again.status_code})", "restore platform/probe.py as it was")
    return seen


@check("errors", effect="writes", seconds=ARRIVAL_SECONDS + 10)
async def tracked(probe: Probe) -> str:
    """An unexpected error is listed by the tracker, without the secret that was in it."""
    if not has_room("errors"):
        raise NotApplicable("because this project has no error monitoring: it has no room errors")
    end = required(probe, "tracker", "tracker", 'url = "https://…" and token_variable = "TRACKER_TOKEN"')
    marker = f"{probe.marker}-tracked"
    response, secret = await _raise(probe, marker)
    if response.status_code != 500:
        raise Gap(f"no error could be raised ({response.status_code})", "fix errors.raised first")
    found = await find(end, "", marker, ARRIVAL_SECONDS)
    if found is None:
        step = "check SENTRY_DSN of the service, the log of the room errors and the limits of the tracker"
        raise Gap(f"the error {marker} did not arrive within {ARRIVAL_SECONDS:g} s", step)
    if secret in found[0]:
        raise Gap("the test password in the error arrived too", "see platform/redaction.py")
    return f"the error {marker} was in the tracker's list after {found[1]:.1f} s, the password in it was not"


async def _raise(probe: Probe, marker: str) -> tuple[httpx2.Response, str]:
    """Request an error, signed; the second value is the test password in it."""
    if not has_room("probe"):
        raise Gap("the room probe was deleted, so no error can be raised", "restore it, or waive this check")
    key = ProbeKey().ready_probe_key
    if key is None:
        raise Gap("READY_PROBE_KEY is not set, so no error can be raised", KEY_STEP)
    text = f"{marker}.{int(time.time())}"  # the format that platform/probe.py expects
    signature = hmac.new(key.get_secret_value().encode(), text.encode(), hashlib.sha256).hexdigest()
    response = await probe.client.post("/__probe__/error", headers={"X-Ready-Probe": f"{text}.{signature}"})
    return response, hashlib.sha256(marker.encode()).hexdigest()[:20]


def _document(response: httpx2.Response, status: int, request_id: str, trace_id: str) -> str:
    step = "let platform/problems.py handle errors, behind the door"
    if response.status_code != status:
        raise Gap(f"{response.url.path} returned {response.status_code}, not {status}", step)
    kind = response.headers.get("content-type", "nothing")
    if not kind.startswith("application/problem+json"):
        raise Gap(f"{status} has the content type {kind}, not application/problem+json", step)
    document = response.json()
    if (document.get("request_id"), response.headers.get("x-request-id")) != (request_id, request_id):
        raise Gap(f"{status} lacks the X-Request-ID that was sent", step)
    if not document.get("trace_id") or (trace_id and document["trace_id"] != trace_id):
        raise Gap(f"{status} lacks the trace id that was sent", step)
    return f"{status} {document.get('code')} with request id {request_id} and trace id {document['trace_id']}"
