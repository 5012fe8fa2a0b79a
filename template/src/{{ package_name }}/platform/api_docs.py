"""`/docs` and `/openapi.json`; the page loads nothing from other hosts: its assets come from a pinned package.

Off in production unless `EXPOSE_DOCS=true`, because the description of an API helps attackers.
"""

import hashlib
import html
from base64 import b64encode
from typing import Any
from urllib.parse import urlsplit

from fastapi import FastAPI
from fastapi.openapi.docs import get_swagger_ui_oauth2_redirect_html
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.staticfiles import StaticFiles

from .room import Room
from .settings import RoomSettings, part

# Swagger UI sets style attributes, hence 'unsafe-inline'; its scripts are files of this origin.
CSP = "default-src 'self'; img-src 'self' data:; style-src 'self' 'unsafe-inline'; frame-ancestors 'none'"
REDIRECT_CSP = "default-src 'none'; script-src 'sha256-{}'; frame-ancestors 'none'"
START_SCRIPT = """const { openapi, redirect } = document.currentScript.dataset;
SwaggerUIBundle({
  url: openapi, oauth2RedirectUrl: location.origin + redirect,
  dom_id: "#docs", deepLinking: true, tryItOutEnabled: true,
}).initOAuth({ usePkceWithAuthorizationCodeGrant: true });
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
<script src="{root}/docs/start.js" data-openapi="{root}/openapi.json" data-redirect="{root}/docs/oauth2-redirect">
</script>
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
        schema, root = app.openapi(), request.scope.get("root_path", "")
        return JSONResponse({**schema, "servers": [{"url": root}, *schema.get("servers", ())]} if root else schema)

    async def page(request: Request) -> Response:
        root = html.escape(request.scope.get("root_path", ""), quote=True)
        text = PAGE.format(title=html.escape(app.title), root=root)
        csp = f"{CSP}; connect-src 'self' {' '.join(_token_origins(app.openapi()))}"
        # The page of the identity provider is a popup, and needs to find this page when it returns.
        headers = {"Content-Security-Policy": csp, "Cross-Origin-Opener-Policy": "same-origin-allow-popups"}
        return HTMLResponse(text, headers=headers)

    async def redirect(request: Request) -> Response:
        found = get_swagger_ui_oauth2_redirect_html()
        script = bytes(found.body).partition(b"<script>")[2].partition(b"</script>")[0]
        csp = REDIRECT_CSP.format(b64encode(hashlib.sha256(script).digest()).decode())
        found.headers.update({"Content-Security-Policy": csp, "Cross-Origin-Opener-Policy": "unsafe-none"})
        return found

    async def start(request: Request) -> Response:
        return Response(START_SCRIPT, media_type="text/javascript")

    app.add_route("/openapi.json", openapi, include_in_schema=False)
    app.add_route("/docs", page, include_in_schema=False)
    app.add_route("/docs/oauth2-redirect", redirect, include_in_schema=False)
    app.add_route("/docs/start.js", start, include_in_schema=False)
    app.mount("/docs/assets", StaticFiles(packages=[("fastapi_offline", "static")]))


def _token_origins(schema: dict[str, Any]) -> list[str]:
    """The origins from which the page requests tokens."""
    schemes = schema.get("components", {}).get("securitySchemes", {}).values()
    urls = [urlsplit(flow.get("tokenUrl", "")) for scheme in schemes for flow in scheme.get("flows", {}).values()]
    return sorted({f"{url.scheme}://{url.netloc}" for url in urls if url.netloc})


ROOM = Room(settings=Settings, install=install)
