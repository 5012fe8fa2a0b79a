"""`/docs` and `/openapi.json`; the page loads nothing from other hosts: its assets come from a pinned package.

Off in production unless `EXPOSE_DOCS=true`, because the description of an API helps attackers.
"""

import html

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.staticfiles import StaticFiles

from .room import Room
from .settings import RoomSettings, part

# Swagger UI sets style attributes, hence 'unsafe-inline'; its scripts are files of this origin.
CSP = "default-src 'self'; img-src 'self' data:; style-src 'self' 'unsafe-inline'; frame-ancestors 'none'"
START_SCRIPT = """SwaggerUIBundle({
  url: document.currentScript.dataset.openapi, dom_id: "#docs", deepLinking: true, tryItOutEnabled: true,
});
"""
PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{title}</title>
<link rel="icon" href="{root}/docs/assets/favicon.png">
<link rel="stylesheet" href="{root}/docs/assets/swagger-ui.css">
<div id="docs"></div>
<script src="{root}/docs/assets/swagger-ui-bundle.js"></script>
<script src="{root}/docs/start.js" data-openapi="{root}/openapi.json"></script>
</html>
"""


class Settings(RoomSettings):
    """Whether the API documentation is served."""

    expose_docs: bool | None = None  # default: true, except in production


def install(app: FastAPI, settings: RoomSettings) -> None:
    """Add the OpenAPI document and the page that shows it."""
    expose = part(settings, Settings).expose_docs
    if not (settings.environment != "production" if expose is None else expose):
        return

    async def openapi(request: Request) -> Response:
        return JSONResponse(app.openapi())

    async def page(request: Request) -> Response:
        root = html.escape(request.scope.get("root_path", ""), quote=True)
        text = PAGE.format(title=html.escape(app.title), root=root)
        return HTMLResponse(text, headers={"Content-Security-Policy": CSP})

    async def start(request: Request) -> Response:
        return Response(START_SCRIPT, media_type="text/javascript")

    app.add_route("/openapi.json", openapi, include_in_schema=False)
    app.add_route("/docs", page, include_in_schema=False)
    app.add_route("/docs/start.js", start, include_in_schema=False)
    app.mount("/docs/assets", StaticFiles(packages=[("fastapi_offline", "static")]))


ROOM = Room(settings=Settings, install=install)
