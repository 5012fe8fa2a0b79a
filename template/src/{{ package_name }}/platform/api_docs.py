"""`/docs` and `/openapi.json`; the page loads nothing from other hosts: its assets come from a pinned package.

Off in production unless `EXPOSE_DOCS=true`, because the description of an API helps attackers.
"""

import hashlib
import re
from base64 import b64encode
from typing import Any
from urllib.parse import urlsplit

from fastapi import FastAPI
from fastapi.openapi.docs import get_swagger_ui_html, get_swagger_ui_oauth2_redirect_html
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.staticfiles import StaticFiles

from .room import Room
from .settings import RoomSettings, part

# Scripts are files of this origin, or allowed by their hash; Swagger UI sets style attributes, hence 'unsafe-inline'.
PAGE_CSP = (
    "default-src 'self'; script-src 'self' {}; img-src 'self' data:; style-src 'self' 'unsafe-inline'; "
    "frame-ancestors 'none'; connect-src 'self'"
)
REDIRECT_CSP = "default-src 'none'; script-src {}; frame-ancestors 'none'"


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
        docs = f"{request.scope.get('root_path', '')}/docs"
        found = get_swagger_ui_html(
            openapi_url=f"{docs.removesuffix('/docs')}/openapi.json",
            title=app.title,
            swagger_js_url=f"{docs}/assets/swagger-ui-bundle.js",
            swagger_css_url=f"{docs}/assets/swagger-ui.css",
            swagger_favicon_url=f"{docs}/assets/favicon.png",
            oauth2_redirect_url=f"{docs}/oauth2-redirect",
            init_oauth={"usePkceWithAuthorizationCodeGrant": True},
            swagger_ui_parameters={"tryItOutEnabled": True},
        )
        # The page of the identity provider is a popup, and needs to find this page when it returns.
        return _restrict(found, " ".join([PAGE_CSP, *_token_origins(app.openapi())]), "same-origin-allow-popups")

    async def redirect(request: Request) -> Response:
        return _restrict(get_swagger_ui_oauth2_redirect_html(), REDIRECT_CSP, "unsafe-none")

    app.add_route("/openapi.json", openapi, include_in_schema=False)
    app.add_route("/docs", page, include_in_schema=False)
    app.add_route("/docs/oauth2-redirect", redirect, include_in_schema=False)
    app.mount("/docs/assets", StaticFiles(packages=[("fastapi_offline", "static")]))


def _restrict(page: Response, csp: str, opener: str) -> Response:
    """Allow what the page needs, and only the scripts that it has."""
    scripts = re.findall(rb"<script>(.*?)</script>", bytes(page.body), re.S)
    hashes = " ".join(f"'sha256-{b64encode(hashlib.sha256(script).digest()).decode()}'" for script in scripts)
    page.headers.update({"Content-Security-Policy": csp.format(hashes), "Cross-Origin-Opener-Policy": opener})
    return page


def _token_origins(schema: dict[str, Any]) -> list[str]:
    """The origins from which the page requests tokens."""
    schemes = schema.get("components", {}).get("securitySchemes", {}).values()
    urls = [urlsplit(flow.get("tokenUrl", "")) for scheme in schemes for flow in scheme.get("flows", {}).values()]
    return sorted({f"{url.scheme}://{url.netloc}" for url in urls if url.netloc})


ROOM = Room(settings=Settings, install=install)
