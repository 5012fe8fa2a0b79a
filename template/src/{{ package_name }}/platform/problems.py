"""Turns every error into a problem document (RFC 9457) with the ids of the request and without internal details.

ServiceError            500
├── BadRequest          400
├── Unauthorized        401
├── Forbidden           403
├── NotFound            404
├── Conflict            409
├── PreconditionFailed  412
├── Unprocessable       422
└── Unavailable         503
"""

import json
from collections.abc import Iterable, Mapping
from http.client import responses
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError, ResponseValidationError
from fastapi.routing import iter_route_contexts
from pydantic import ValidationError
from pydantic_core import to_jsonable_python
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import PlainTextResponse, Response
from starlette.websockets import WebSocket, WebSocketDisconnect

from .codes import PROBLEMS, code_of
from .room import Room
from .settings import RoomSettings
from .state import current

CLIENT_CLOSED_REQUEST = 499  # only for the access log, as in NGINX
MAX_ERRORS = 20  # of one request: a body may have 100,000 wrong fields
MAX_CHARACTERS = 200  # of a location, a message or a type


class ServiceError(Exception):
    """An error with its own response: raise it anywhere below a route.

    A subclass with its own `code` is a problem of its own: the first line of its docstring explains it.

    Args:
        detail: One sentence, which is sent to the client.
        code: A stable name of the error, for programs; default: the class's.
    """

    status = 500
    code = "internal-error"

    def __init_subclass__(cls) -> None:
        PROBLEMS.setdefault(cls.status, {}).setdefault(cls.code, (cls.__doc__ or "").strip().partition("\n")[0])

    def __init__(self, detail: str, *, code: str | None = None, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.code = code or self.code
        self.headers = headers


class BadRequest(ServiceError):
    """The request is malformed."""

    status = 400
    code = "bad-request"


class Unauthorized(ServiceError):
    """The request has no valid credentials.

    Args:
        challenge: How to authenticate: the header `WWW-Authenticate`, which RFC 9110 section 15.5.2 requires.
    """

    status = 401
    code = "unauthorized"

    def __init__(self, detail: str, *, code: str | None = None, challenge: str = "Bearer") -> None:
        super().__init__(detail, code=code, headers={"WWW-Authenticate": challenge})


class Forbidden(ServiceError):
    """The credentials do not permit the request."""

    status = 403
    code = "forbidden"


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


class InvalidData(Exception):
    """A value of the service itself does not fit its model: where and how, but without the value."""


def response(
    status: int,
    code: str,
    detail: str,
    *,
    errors: Iterable[Mapping[str, Any]] = (),
    headers: Mapping[str, str] | None = None,
    members: Mapping[str, Any] | None = None,
) -> Response:
    """Create the problem document of RFC 9457, with the ids that find the request in the logs.

    Args:
        status: Of the response.
        code: A stable name. If it is one of `PROBLEMS`, the document's type is a page of this service about it.
        detail: One sentence.
        errors: What pydantic found; the document has the first ones, without their values.
        headers: Of the response.
        members: Further members of the document (RFC 9457 section 3.2); they never replace those that it has.
    """
    context, known, found = current.get(), code in PROBLEMS.get(status, {}), [*errors]
    document: dict[str, Any] = {
        "type": f"{context.root_path if context else ''}/problems/{code}" if known else "about:blank",
        "title": (code if known else code_of(status)).replace("-", " ").capitalize(),
        "status": status,
        "detail": detail,
        "code": code,
    }
    if context:
        document |= {"request_id": context.request_id, "trace_id": context.trace_id}
    if found:
        document["errors"] = [_described(error) for error in found[:MAX_ERRORS]]
    if len(found) > MAX_ERRORS:
        document["errors_left_out"] = len(found) - MAX_ERRORS
    if members:
        document = {**document, **to_jsonable_python(members, serialize_unknown=True, inf_nan_mode="null"), **document}
    text = json.dumps(document, ensure_ascii=False, separators=(",", ":"))
    return Response(text.encode("utf-8", "replace"), status, headers, media_type="application/problem+json")


def _described(error: Mapping[str, Any]) -> dict[str, str]:
    texts = {"location": ".".join(map(str, error["loc"])), "message": str(error["msg"]), "type": str(error["type"])}
    return {name: text[:MAX_CHARACTERS] + "…" * (len(text) > MAX_CHARACTERS) for name, text in texts.items()}


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
        code, given = code_of(error.status_code), error.detail
        detail = PROBLEMS.get(error.status_code, {}).get(code, "The service responded with an error.")
        if isinstance(given, str):
            phrases = {"", responses.get(error.status_code, "").lower(), code.replace("-", " ")}  # of libraries
            return response(error.status_code, code, detail if given.lower() in phrases else given, headers=headers)
        members = given if isinstance(given, Mapping) else {"details": given}
        code, detail = str(members.get("code", code)), str(members.get("detail", detail))
        return response(error.status_code, code, detail, headers=headers, members=members)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        found = error.errors()
        if any(e["type"] == "json_invalid" for e in found):
            return response(400, "malformed-json", "The body is not valid JSON.")
        return response(422, "invalid-request", "The request does not fit the schema.", errors=found)

    @app.exception_handler(ResponseValidationError)
    @app.exception_handler(ValidationError)
    async def invalid_data(request: Request, error: ResponseValidationError | ValidationError) -> Response:
        """Raise it again without the values: the error contains each of them, and goes to the log and to Sentry."""
        found = [_described(each) for each in error.errors()[:MAX_ERRORS]]
        where = ", ".join(f"{each['location']} ({each['type']})" for each in found)
        raise InvalidData(where).with_traceback(error.__traceback__) from None

    @app.exception_handler(ClientDisconnect)
    async def client_disconnected(request: Request, error: ClientDisconnect) -> Response:
        return Response(status_code=CLIENT_CLOSED_REQUEST)

    @app.exception_handler(WebSocketDisconnect)
    async def socket_closed(socket: WebSocket, error: WebSocketDisconnect) -> None:
        """Whatever the close code: it is chosen by the client, or says that the service ends."""

    @app.exception_handler(Exception)
    async def unexpected(request: Request, error: Exception) -> Response:
        return response(500, "internal-error", "The service failed. Search its logs for the request id.")

    async def explain(request: Request) -> Response:
        code = request.path_params["code"]
        for status, texts in PROBLEMS.items():
            if code in texts:
                return PlainTextResponse(f"{code} (status {status})\n\n{texts[code]}\n")
        raise NotFound("There is no problem with this code.")

    app.add_route("/problems/{code}", explain, include_in_schema=False)


def describe(schema: dict[str, Any], app: FastAPI) -> None:
    """Add the problem document to each operation of the OpenAPI document, as its default response."""
    text, number = {"type": "string"}, {"type": "integer"}
    invalid = {"type": "object", "properties": {"location": text, "message": text, "type": text}}
    required = ["type", "title", "status", "detail", "code"]
    texts = dict.fromkeys([*required, "request_id", "trace_id"], text)
    members = {**texts, "status": number, "errors": {"type": "array", "items": invalid}, "errors_left_out": number}
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
