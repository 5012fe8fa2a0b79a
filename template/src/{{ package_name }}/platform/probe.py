"""`/__probe__/error`: raises an unhandled error for `ready`, which then checks that it is logged and reported.

It exists only with `READY_PROBE_KEY`. A request must be signed over its marker and time (HMAC, RFC 2104), at most 60
seconds old, and new; only a few per minute are accepted. Any other request gets a 404, as for an unknown path.
"""

import hashlib
import hmac
import re
import time
from typing import Annotated

from fastapi import FastAPI, HTTPException
from pydantic import Field, SecretStr
from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from .room import Room
from .settings import RoomSettings, part

HEADER = "X-Ready-Probe"
PATH = "/__probe__/error"
WINDOW_SECONDS = 60
MAX_ERRORS = 6  # per window
_SIGNED = re.compile(r"([A-Za-z0-9-]{8,64})\.(\d{10})\.([0-9a-f]{64})", re.ASCII)


class Settings(RoomSettings):
    """The key that signs requests for a test error."""

    ready_probe_key: Annotated[SecretStr, Field(min_length=32)] | None = None


class ProbeError(Exception):
    """Requested by `ready`; nothing is broken."""


def sign(key: str, marker: str, now: float) -> str:
    """Create the value of the header.

    Args:
        key: `READY_PROBE_KEY`.
        marker: Identifies the run, 8 to 64 letters, digits and hyphens; the error contains it.
        now: Seconds since the epoch.
    """
    text = f"{marker}.{int(now)}"
    return f"{text}.{hmac.new(key.encode(), text.encode(), hashlib.sha256).hexdigest()}"


def planted(marker: str) -> str:
    """The secret in the error of a run: `ready` checks that it appears nowhere."""
    return hashlib.sha256(marker.encode()).hexdigest()[:20]


class ErrorOnRequest:
    """ASGI application that raises the error, else a 404; a route would respond to other methods with 405."""

    def __init__(self, key: str) -> None:
        self.key = key
        self.accepted: dict[str, float] = {}  # by signature, until it is too old

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Accept or reject one request."""
        request = Request(scope)
        marker = self.accept(request.headers.get(HEADER, "")) if request.method == "POST" else None
        if marker is None:
            raise HTTPException(404)
        raise ProbeError(f"requested by the readiness check {marker}, password={planted(marker)}")

    def accept(self, header: str) -> str | None:
        """Return the marker of a request that is signed, recent, new and within the limit; else None."""
        signed = _SIGNED.fullmatch(header)
        if not signed or not hmac.compare_digest(sign(self.key, signed[1], int(signed[2])), header):
            return None
        now, then = time.time(), int(signed[2])
        self.accepted = {each: until for each, until in self.accepted.items() if until > now}
        if abs(now - then) > WINDOW_SECONDS or header in self.accepted or len(self.accepted) >= MAX_ERRORS:
            return None
        self.accepted[header] = max(now, then) + WINDOW_SECONDS
        return signed[1]


def install(app: FastAPI, settings: RoomSettings) -> None:
    """Add the route if there is a key."""
    key = part(settings, Settings).ready_probe_key
    if key is not None:
        app.add_route(PATH, ErrorOnRequest(key.get_secret_value()), include_in_schema=False)  # type: ignore[arg-type]


ROOM = Room(settings=Settings, install=install)
