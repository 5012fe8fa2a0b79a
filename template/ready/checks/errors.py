"""Error monitoring: an error is answered without an inside of the service, and with the ids that find it."""

import hashlib
import hmac
import secrets
import time

import httpx2
from pydantic import SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from ..engine import Gap, NotApplicable, Probe, check
from ..far import find
from ..project import has_room

ARRIVE = 20.0  # seconds for an error
SET = (
    'type echo "READY_PROBE_KEY=$(openssl rand -hex 32)" >> .env and start the service again; '
    "elsewhere give service and `ready` the same key"
)


class Key(BaseSettings):
    """What the service and this check share."""

    model_config = SettingsConfigDict(env_file=".env", env_ignore_empty=True, extra="ignore")

    ready_probe_key: SecretStr | None = None


@check("errors")
async def problems(probe: Probe) -> str:
    """An error is a problem document (RFC 9457) with the ids of its request."""
    trace = secrets.token_hex(16)
    answer = await probe.client.get(
        f"/{probe.marker}", headers={"traceparent": f"00-{trace}-{secrets.token_hex(8)}-00"}
    )
    return _document(answer, 404, probe.marker, trace)


@check("errors", effect="writes")
async def raised(probe: Probe) -> str:
    """An error that nobody expected is answered without an inside of the service."""
    answer, _ = await _raise(probe, probe.marker)
    if answer.status_code == 404:
        raise Gap(f"{answer.url.path} answered 404: no READY_PROBE_KEY there, another one, or another time", SET)
    seen = _document(answer, 500, probe.marker, "")
    inside = [word for word in ("Traceback", "ProbeError", ".py") if word in answer.text]
    if inside:
        raise Gap(f"the answer tells insiders' words: {', '.join(inside)}", "answer errors by platform/problems.py")
    again = await probe.client.send(answer.request)
    if again.status_code != 404:
        raise Gap(f"the same signature was taken twice ({again.status_code})", "let platform/probe.py be as it was")
    return seen


@check("errors", effect="writes", seconds=ARRIVE + 10)
async def tracked(probe: Probe) -> str:
    """An error that nobody expected is found in the tracker, without the secret that was in it."""
    if not has_room("errors"):
        raise NotApplicable("because the service was made without error monitoring (error_monitoring=none)")
    end = probe.config.far_ends.tracker
    if end is None and not probe.production:
        raise NotApplicable("because only production needs a tracker, and none is named")
    if end is None:
        raise Gap("no tracker is named", 'add to ready.toml: [far_ends.tracker] url = "https://…", token_variable = …')
    marker = f"{probe.marker}-tracked"
    answer, secret = await _raise(probe, marker)
    if answer.status_code != 500:
        raise Gap(f"no error could be raised ({answer.status_code})", "mend errors.raised first")
    found = await find(end, "", marker, ARRIVE)
    if found is None:
        step = "look at SENTRY_DSN of the service, at the log of the room errors and at the limits of the tracker"
        raise Gap(f"the error {marker} did not arrive within {ARRIVE:g} s", step)
    if secret in found[0]:
        raise Gap("the password that was planted in the error has arrived as well", "see platform/redaction.py")
    return f"the error {marker} was found after {found[1]:.1f} s, the password that was planted in it was not"


async def _raise(probe: Probe, marker: str) -> tuple[httpx2.Response, str]:
    """Ask for an error, signed; the second value is the secret that is in it."""
    if not has_room("probe"):
        raise Gap("the room probe is gone, so no error can be asked for", "restore it, or waive this check")
    key = Key().ready_probe_key
    if key is None:
        raise Gap("READY_PROBE_KEY is not set, so no error can be asked for", SET)
    text = f"{marker}.{int(time.time())}"  # as platform/probe.py wants it
    signature = hmac.new(key.get_secret_value().encode(), text.encode(), hashlib.sha256).hexdigest()
    answer = await probe.client.post("/__probe__/error", headers={"X-Ready-Probe": f"{text}.{signature}"})
    return answer, hashlib.sha256(marker.encode()).hexdigest()[:20]


def _document(answer: httpx2.Response, status: int, request_id: str, trace_id: str) -> str:
    step = "answer errors by platform/problems.py, behind the door"
    if answer.status_code != status:
        raise Gap(f"{answer.url.path} answered {answer.status_code}, not {status}", step)
    kind = answer.headers.get("content-type", "nothing")
    if not kind.startswith("application/problem+json"):
        raise Gap(f"{status} came as {kind}, not as application/problem+json", step)
    document = answer.json()
    if (document.get("request_id"), answer.headers.get("x-request-id")) != (request_id, request_id):
        raise Gap(f"{status} does not carry the X-Request-ID that was sent", step)
    if not document.get("trace_id") or (trace_id and document["trace_id"] != trace_id):
        raise Gap(f"{status} does not carry the trace id that was sent", step)
    return f"{status} {document.get('code')} with request id {request_id} and trace id {document['trace_id']}"
