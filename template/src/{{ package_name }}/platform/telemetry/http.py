"""Creates the spans of requests: a second application with the same middleware and routes traces what it serves.

The door sends only sampled requests there. So all others cost nothing: FastAPI and instrumentations collect attributes
before they ask a sampler.
"""

from fastapi import FastAPI
from fastapi.telemetry import TelemetryConfig
from opentelemetry.trace import TracerProvider
from starlette.middleware.errors import ServerErrorMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from ..room import find_module


def make_traced(app: FastAPI, provider: TracerProvider) -> ASGIApp:
    """Create the second application: it traces each request as one server span, then handles it like `app`.

    Args:
        app: No middleware can be added to it any more.
        provider: Creates the spans.
    """
    # The outermost middleware turns errors into responses. The second application has its own, so that the span
    # records the error before the response ends it.
    stack = app.middleware_stack or app.build_middleware_stack()
    shared = stack.app if isinstance(stack, ServerErrorMiddleware) else stack

    async def inner(scope: Scope, receive: Receive, send: Send) -> None:
        scope["app"] = app
        await shared(scope, receive, send)

    contrib = find_module("contrib", __package__ or "")  # otherwise FastAPI creates the spans itself
    own: TelemetryConfig = {"metrics": False, "logs": False, "operation_spans": False, "tracer_provider": provider}
    none: TelemetryConfig = {"exclude": lambda scope: True}  # nor may a mounted application create its own spans
    traced = FastAPI(
        debug=app.debug,
        exception_handlers=dict(app.exception_handlers),
        openapi_url=None,
        root_path=app.root_path,
        telemetry=none if contrib else own,
    )
    traced.add_middleware(lambda router: inner)
    if contrib:
        contrib.instrument(traced, provider)
    return traced
