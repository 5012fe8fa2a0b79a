"""`/__dev__`: shows the latest requests live, with their traces, logs, errors and SQL, on a developer's machine only.

It gets redacted data from telemetry and logs; without ENVIRONMENT=local it does not exist.
"""

import secrets
from collections import OrderedDict, deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response

from .room import Room
from .routes import example_path
from .settings import RoomSettings
from .state import QUIET, state_of

MAX_REQUESTS = 100
MAX_WANTED = 10  # trace ids that were asked for
MAX_PARTS = 200  # lines, and spans, of one trace id: a client may send the same one again and again
MAX_CHARACTERS = 16_000  # of one line, or span
HIDDEN_PATHS = {*QUIET, "/__dev__", "/__dev__/report"}  # the page's own requests
PAGE = Path(__file__).with_name("dev.html")
CSP = "default-src 'none'; connect-src 'self'; script-src 'nonce-{0}'; style-src 'nonce-{0}'; frame-ancestors 'none'"
REPORT_CSP = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"
REPORT_FILE = Path(".ready/last.html")  # written by `make ready`


class RequestedError(Exception):
    """Raised by a button of the page; nothing is broken."""


class Recorder:
    """Collects the latest requests by trace id; their lines and spans arrive one by one, in any order."""

    def __init__(self) -> None:
        self.records: OrderedDict[str, dict[str, Any]] = OrderedDict()
        self.wanted: deque[str] = deque(maxlen=MAX_WANTED)
        self.changes = 0

    def line(self, line: Mapping[str, Any]) -> None:
        """Add a log line; the access line describes the request."""
        trace_id = str(line.get("trace_id", ""))
        if not trace_id or line.get("path") in HIDDEN_PATHS:
            self.records.pop(trace_id, None)
            return
        record = self._record(trace_id)
        if line.get("logger") is None and line.get("event") == "request":
            record.update({key: line.get(key) for key in ("method", "path", "route", "status", "ms", "request_id")})
        else:
            _add(record["lines"], _cut({key: value for key, value in line.items() if not key.endswith("_id")}))

    def export(self, spans: Sequence[Any]) -> None:
        """Add ended spans: with this method it is an OpenTelemetry exporter, as far as `telemetry` needs one."""
        for span in spans:
            _add(
                self._record(f"{span.context.trace_id:032x}")["spans"],
                {
                    "id": f"{span.context.span_id:016x}",
                    "parent": f"{span.parent.span_id:016x}" if span.parent else "",
                    "name": span.name,
                    "kind": span.kind.name.lower(),
                    "start": span.start_time / 1e6,  # ms
                    "ms": (span.end_time - span.start_time) / 1e6,
                    "failed": span.status.status_code.name == "ERROR",
                    "attributes": _cut(span.attributes or {}),
                },
            )

    def shutdown(self) -> None:
        """Do nothing: nothing is buffered."""

    def find(self, trace_id: str) -> dict[str, Any]:
        """Return one request, empty if unknown; from now on no other request displaces it."""
        if trace_id not in self.wanted:
            self.wanted.append(trace_id)
        return self.records.get(trace_id, {})

    def _record(self, trace_id: str) -> dict[str, Any]:
        self.changes += 1
        if trace_id not in self.records:
            self.records[trace_id] = {"trace_id": trace_id, "lines": [], "spans": []}
            while len(self.records) > 2 * MAX_REQUESTS:  # the page's own requests are removed later
                del self.records[next(each for each in self.records if each not in self.wanted)]
        return self.records[trace_id]

    def requests(self) -> list[dict[str, Any]]:
        """The completed requests, newest first."""
        return [record for record in reversed(self.records.values()) if "status" in record][:MAX_REQUESTS]


def _add(parts: list[dict[str, Any]], part: dict[str, Any]) -> None:
    parts.append(part)
    del parts[:-MAX_PARTS]


def _cut(fields: Mapping[str, Any]) -> dict[str, str]:
    """The values as texts: of a long one, such as a traceback, the beginning and the end."""
    found, left = {}, MAX_CHARACTERS
    for name, value in fields.items():
        text = str(value)
        found[name] = text if len(text) <= left else f"{text[: left // 2]}…{text[len(text) - left // 2 :]}"
        left -= len(name) + len(found[name])
        if left < 0:
            break
    return found


def install(app: FastAPI, settings: RoomSettings) -> None:
    """Add the page if the environment is local."""
    if settings.environment != "local":
        return
    recorder, state = Recorder(), state_of(app)
    state.lines.append(recorder.line)
    state.spans.append(recorder)

    async def page(request: Request) -> Response:
        nonce = secrets.token_urlsafe(16)
        text = PAGE.read_text(encoding="utf-8").replace("{nonce}", nonce)
        return HTMLResponse(text, headers={"Content-Security-Policy": CSP.format(nonce)})

    async def data(request: Request) -> Response:
        if request.query_params.get("after") == str(recorder.changes):
            return Response(status_code=304)
        service, example = f"{app.title} {app.version}", example_path(app)
        if trace_id := request.query_params.get("trace"):
            return JSONResponse(recorder.find(trace_id))
        found = {"service": service, "changes": recorder.changes, "example": example, "report": bool(_report())}
        return JSONResponse({**found, "requests": recorder.requests()})

    async def error(request: Request) -> Response:
        raise RequestedError("requested at /__dev__")

    async def report(request: Request) -> Response:
        if text := _report():
            return HTMLResponse(text, headers={"Content-Security-Policy": REPORT_CSP})
        return Response("No report yet: run `make ready`.\n", 404, media_type="text/plain")

    app.add_route("/__dev__", page, include_in_schema=False)
    app.add_route("/__dev__/data", data, include_in_schema=False)
    app.add_route("/__dev__/error", error, methods=["POST"], include_in_schema=False)
    app.add_route("/__dev__/report", report, include_in_schema=False)


def _report() -> str:
    return REPORT_FILE.read_text(encoding="utf-8") if REPORT_FILE.is_file() else ""


ROOM = Room(install=install)
