"""The service with a feature whose routes say in all the ways in which one can who may keep their answers."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.plant import Feature
from tests.projects import Project, Service, render
from tests.service.conftest import migrated

FEATURE = '''"""Answers that are kept, or not."""

import asyncio
from collections.abc import AsyncIterator

from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse

from ...platform.http_cache.policy import Invalidates, HttpPolicy, invalidate_tags, add_tags
from ...platform.problems import NotFound

router = APIRouter(prefix="/kept")
shared_for_a_minute = HttpPolicy(s_maxage=60)
RICH = HttpPolicy(
    max_age=60,
    s_maxage=120,
    stale_while_revalidate=30,
    stale_if_error=600,
    vary=("Accept-Language", "accept-encoding"),
    tags=("a", "b"),
)


def who(request: Request) -> str:
    return request.headers.get("authorization", "") + request.headers.get("cookie", "")


@router.get("/rich")
@RICH
async def rich() -> Response:
    headers = {
        "Content-Language": "en",
        "Content-Location": "/kept/rich?v=1",
        "Expires": "Thu, 01 Jan 2099 00:00:00 GMT",
        "Last-Modified": "Thu, 01 Jan 2026 00:00:00 GMT",
        "Vary": "Accept-Encoding",
        "X-Own": "yes",
    }
    return Response("hello", headers=headers, media_type="text/plain")


@router.get("/private")
@HttpPolicy(private=True, max_age=60)
async def private(request: Request) -> str:
    return who(request)


@router.get("/shared")
@shared_for_a_minute
async def shared(request: Request) -> str:
    return who(request)


@router.get("/silent")
async def silent(request: Request) -> str:
    return who(request)


@router.get("/cookie")
@shared_for_a_minute
async def cookie(request: Request, response: Response) -> str:
    response.set_cookie("session", request.headers.get("x-name", ""))
    return request.headers.get("x-name", "")


@router.get("/own")
@shared_for_a_minute
async def own(response: Response) -> str:
    response.headers["Cache-Control"] = "max-age=5"
    return "own"


@router.get("/tagged")
@shared_for_a_minute
async def tagged(request: Request, tag: str) -> Response:
    return Response("tagged", headers={"ETag": tag})


@router.get("/text")
@shared_for_a_minute
async def text(text: str) -> Response:
    return Response(text, media_type="text/plain")


@router.get("/size")
@shared_for_a_minute
async def size(size: int) -> Response:
    return Response(b"x" * size)


@router.get("/absent")
@shared_for_a_minute
async def absent() -> None:
    raise NotFound("gone")


@router.get("/tags")
@HttpPolicy(tags=("fixed",))
async def tags(request: Request) -> None:
    add_tags(request, "item-7", "a b", "c,d")
    add_tags(request, "e\\r\\nX-Injected: yes", "ü")


@router.get("/starred")
@HttpPolicy(vary=("Accept-Language",))
async def starred(response: Response) -> None:
    response.headers["Vary"] = "*"


inner = APIRouter(prefix="/inner")
innermost = APIRouter(prefix="/{number}")


@innermost.get("/first")
@HttpPolicy(max_age=3)
async def first(number: int) -> int:
    return number


inner.include_router(innermost)
router.include_router(inner)


@router.get("/stream")
@shared_for_a_minute
async def stream(request: Request) -> Response:
    gates = request.app.state.gates = [asyncio.Event(), asyncio.Event()]

    async def parts() -> AsyncIterator[bytes]:
        for number, gate in enumerate(gates):
            await gate.wait()
            yield f"part {number};".encode()

    return StreamingResponse(parts(), media_type="text/event-stream")


@router.post("/stream/{number}")
async def let_on(request: Request, number: int) -> None:
    request.app.state.gates[number].set()


@router.post("/changed")
@Invalidates()
async def change(request: Request, count: int, status: int = 200) -> Response:
    invalidate_tags(request, *(f"tag-{number}" for number in range(count)))
    return Response(status_code=status)
'''


@pytest.fixture(scope="session")
def keeper(template: Path, project: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project with a CDN and the feature. Do not change it: make a `variant`."""
    made = Project(render(template, tmp_path_factory.mktemp("keeper") / "service", cdn="cloudflare"))
    made.venv = project.venv
    Feature("kept", FEATURE).apply(made.root)
    return made


@pytest.fixture(scope="session")
def kept(keeper: Project, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """It runs; tests leave it running."""
    folder = tmp_path_factory.mktemp("kept")
    env = {"LOG_FORMAT": "json", **migrated(keeper, f"sqlite:///{folder}/service.db")}
    with keeper.serve(folder, env) as service:
        yield service


@pytest.fixture
def client(kept: Service) -> httpx.Client:
    """Talks to it, without anything that came before."""
    kept.client.cookies.clear()
    return kept.client
