"""`/__probe__/error`: raises an unhandled error when `ready` asks for it, so that the way of errors can be proven.

It exists only with `READY_PROBE_KEY`. A request is taken that is signed over its marker and time (HMAC, RFC 2104), at
most 60 seconds old, once, and a few times a minute; to all others it looks like any path that does not exist.
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
WINDOW = 60  # seconds
MAX_ERRORS = 6  # errors in a window
_SIGNED = re.compile(r"([A-Za-z0-9-]{8,64})\.(\d{10})\.([0-9a-f]{64})", re.ASCII)


class Settings(RoomSettings):
    """Who may ask for an error."""

    ready_probe_key: Annotated[SecretStr, Field(min_length=32)] | None = None


class ProbeError(Exception):
    """Asked for by `ready`; nothing is broken."""


def sign(key: str, marker: str, now: float) -> str:
    """Make the value of the header.

    Args:
        key: `READY_PROBE_KEY`.
        marker: Names the run, 8 to 64 letters, digits and hyphens; it stands in the error.
        now: Seconds since the epoch.
    """
    text = f"{marker}.{int(now)}"
    return f"{text}.{hmac.new(key.encode(), text.encode(), hashlib.sha256).hexdigest()}"


def planted(marker: str) -> str:
    """The secret in the error of a run: wherever errors are shown, `ready` looks that it is not."""
    return hashlib.sha256(marker.encode()).hexdigest()[:20]


class ErrorOnRequest:
    """ASGI application that raises the error, or answers as if it did not exist: by any method, for any path is so."""

    def __init__(self, key: str) -> None:
        self.key = key
        self.taken: dict[str, float] = {}  # by signature, until it is too late for it anyway

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Take one request, or refuse it."""
        request = Request(scope)
        marker = self.take(request.headers.get(HEADER, "")) if request.method == "POST" else None
        if marker is None:
            raise HTTPException(404)
        raise ProbeError(f"asked for by the readiness check {marker}, password={planted(marker)}")

    def take(self, header: str) -> str | None:
        """The marker of a request that is signed, in time, new and not one too many; else None."""
        signed = _SIGNED.fullmatch(header)
        if not signed or not hmac.compare_digest(sign(self.key, signed[1], int(signed[2])), header):
            return None
        now, then = time.time(), int(signed[2])
        self.taken = {each: until for each, until in self.taken.items() if until > now}
        if abs(now - then) > WINDOW or header in self.taken or len(self.taken) >= MAX_ERRORS:
            return None
        self.taken[header] = max(now, then) + WINDOW
        return signed[1]


def install(app: FastAPI, settings: RoomSettings) -> None:
    """Add the route, where there is a key."""
    key = part(settings, Settings).ready_probe_key
    if key is not None:
        app.add_route(PATH, ErrorOnRequest(key.get_secret_value()), include_in_schema=False)  # type: ignore[arg-type]


ROOM = Room(settings=Settings, install=install)
