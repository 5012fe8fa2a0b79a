"""Turns every error into a problem document (RFC 9457) with the ids of the request and without internal details.

ServiceError            500
├── BadRequest          400
├── NotFound            404
├── Conflict            409
├── PreconditionFailed  412
├── Unprocessable       422
└── Unavailable         503
"""

from collections.abc import Mapping
from http.client import responses
from typing import Any

import orjson
import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import iter_route_contexts
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.websockets import WebSocket, WebSocketDisconnect

from .room import Room
from .settings import RoomSettings
from .state import current

CLIENT_CLOSED_REQUEST = 499  # only for the access log, as in NGINX


class ServiceError(Exception):
    """An error with its own response: raise it anywhere below a route.

    Args:
        detail: One sentence, which is sent to the client.
        code: A stable name of the error, for programs; default: the class's.
    """

    status = 500
    code = "internal-error"

    def __init__(self, detail: str, *, code: str | None = None, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.code = code or self.code
        self.headers = headers


class BadRequest(ServiceError):
    """The request is malformed."""

    status = 400
    code = "bad-request"


class NotFound(ServiceError):
    """The requested resource does not exist."""

    status = 404
    code = "not-found"


class Conflict(ServiceError):
    """The request conflicts with the state of the resource."""

    status = 409
    code = "conflict"


class PreconditionFailed(ServiceError):
    """The resource has changed since the client read it."""

    status = 412
    code = "precondition-failed"


class Unprocessable(ServiceError):
    """The request is well-formed, but cannot be processed."""

    status = 422
    code = "unprocessable"


class Unavailable(ServiceError):
    """A part that the request needs is down; a later retry may succeed."""

    status = 503
    code = "unavailable"

    def __init__(self, detail: str, *, code: str | None = None) -> None:
        super().__init__(detail, code=code, headers={"Retry-After": "5"})


def response(
    status: int,
    code: str,
    detail: str,
    *,
    errors: list[dict[str, str]] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """Create the problem document of RFC 9457, with the ids that find the request in the logs."""
    document: dict[str, Any] = {
        "type": "about:blank",
        "title": responses.get(status, "Error"),
        "status": status,
        "detail": detail,
        "code": code,
    }
    if context := current.get():
        document |= {"request_id": context.request_id, "trace_id": context.trace_id}
    if errors:
        document["errors"] = errors
    return Response(orjson.dumps(document), status, headers, media_type="application/problem+json")


def _allowed_methods(app: FastAPI, first: str) -> str:
    """All methods of the path; the router only knows those of the first route with that path."""
    context = current.get()
    routes = [each for each in iter_route_contexts(app.routes) if context and each.path_format == context.route]
    return ", ".join(sorted({method for route in routes for method in route.methods or ()})) or first


def _log(error: Exception, status: int) -> None:
    """Log the reason, which the client does not get. A 503 is logged by the part that is unavailable."""
    if status >= 500 and status != 503:
        structlog.get_logger("problems").error("responded with an error", status=status, exc_info=error)


def install(app: FastAPI, settings: RoomSettings) -> None:
    """Add the handlers for every kind of error."""

    @app.exception_handler(ServiceError)
    async def service_error(request: Request, error: ServiceError) -> Response:
        _log(error, error.status)
        return response(error.status, error.code, error.detail, headers=error.headers)

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> Response:
        if error.status_code < 400:
            return Response(status_code=error.status_code, headers=error.headers)
        headers = dict(error.headers or {})
        if error.status_code == 405:
            headers["Allow"] = _allowed_methods(app, headers.get("Allow", ""))
        _log(error, error.status_code)
        code = responses.get(error.status_code, "error").lower().replace(" ", "-")
        return response(error.status_code, code, str(error.detail), headers=headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        found = error.errors()
        if any(e["type"] == "json_invalid" for e in found):
            return response(400, "malformed-json", "The body is not valid JSON.")
        errors = [
            {"location": ".".join(str(step) for step in e["loc"]), "message": str(e["msg"]), "type": str(e["type"])}
            for e in found
        ]
        return response(422, "invalid-request", "The request does not fit the schema.", errors=errors)

    @app.exception_handler(ClientDisconnect)
    async def client_disconnected(request: Request, error: ClientDisconnect) -> Response:
        return Response(status_code=CLIENT_CLOSED_REQUEST)

    @app.exception_handler(WebSocketDisconnect)
    async def socket_closed(socket: WebSocket, error: WebSocketDisconnect) -> None:
        """Whatever the close code: it is chosen by the client, or says that the service ends."""

    @app.exception_handler(Exception)
    async def unexpected(request: Request, error: Exception) -> Response:
        return response(500, "internal-error", "The service failed. Search its logs for the request id.")


def describe(schema: dict[str, Any], app: FastAPI) -> None:
    """Add the problem document to each operation of the OpenAPI document, as its default response."""
    text, number = {"type": "string"}, {"type": "integer"}
    invalid = {"type": "object", "properties": {"location": text, "message": text, "type": text}}
    required = ["type", "title", "status", "detail", "code"]
    texts = dict.fromkeys([*required, "request_id", "trace_id"], text)
    members = {**texts, "status": number, "errors": {"type": "array", "items": invalid}}
    components = schema.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    schemas["Problem"] = {"type": "object", "title": "Problem", "properties": members, "required": required}
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    content = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    components["responses"] = {"Problem": {"description": "Something went wrong", "content": content}}
    for path in schema.get("paths", {}).values():
        for operation in path.values():
            operation["responses"].pop("422", None)
            operation["responses"]["default"] = {"$ref": "#/components/responses/Problem"}


ROOM = Room(install=install, describe=describe, required=True)
