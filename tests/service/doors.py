"""A service with every kind of response, and raw requests to it."""

import http.client
import json
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.plant import Feature
from tests.projects import Change, Edit, Project, Service

KINDS = Feature(
    "kinds",
    '''"""Every kind of response."""

import asyncio
import os
from typing import Annotated

import httpx2
from fastapi import APIRouter, Body, HTTPException, Request, WebSocket, WebSocketException
from fastapi.responses import PlainTextResponse, RedirectResponse, StreamingResponse

router = APIRouter(prefix="/kinds")


@router.get("/plain")
async def plain(request: Request) -> dict[str, str]:
    return {"url": str(request.url), "host": request.headers.get("host", "")}


@router.post("/json")
async def take_json(value: Annotated[dict[str, int], Body()]) -> int:
    return len(value)


@router.post("/stream")
async def take_stream(request: Request) -> int:
    return sum([len(part) async for part in request.stream()])


@router.get("/call")
async def call() -> None:
    async with httpx2.AsyncClient() as client:
        await client.get(os.environ["CALL_URL"])


@router.get("/redirect")
async def redirect() -> RedirectResponse:
    return RedirectResponse("/kinds/plain")


@router.get("/drip")
async def drip() -> StreamingResponse:
    async def parts():
        for _ in range(5):
            yield b"part"

    return StreamingResponse(parts())


@router.get("/broken-header")
async def broken_header() -> PlainTextResponse:
    return PlainTextResponse("never sent", headers={"X-Broken": "a\\nb"})


@router.websocket("/echo")
async def echo(socket: WebSocket) -> None:
    await socket.accept()
    while True:
        await socket.send_text(await socket.receive_text())


@router.websocket("/push")
async def push(socket: WebSocket) -> None:
    await socket.accept()
    while True:
        await socket.send_text("x" * 1000)
        await asyncio.sleep(0.05)


@router.websocket("/group")
async def group(socket: WebSocket) -> None:
    await socket.accept()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(socket.receive_text())
        tasks.create_task(asyncio.sleep(30))


@router.websocket("/slow")
async def slow(socket: WebSocket) -> None:
    await asyncio.sleep(1)
    await socket.accept()


@router.websocket("/closes")
async def closes(socket: WebSocket) -> None:
    await socket.close(1008)


@router.websocket("/raises")
async def raises(socket: WebSocket) -> None:
    raise WebSocketException(1008)


@router.websocket("/denies")
async def denies(socket: WebSocket) -> None:
    await socket.send_denial_response(PlainTextResponse("pay first", 402))


@router.websocket("/problem")
async def problem(socket: WebSocket) -> None:
    raise HTTPException(429, "too fast")


@router.websocket("/needs")
async def needs(socket: WebSocket, number: int) -> None:
    await socket.accept()


@router.websocket("/returns")
async def returns(socket: WebSocket) -> None:
    pass


@router.websocket("/fails")
async def fails(socket: WebSocket) -> None:
    raise RuntimeError("before the handshake")


@router.websocket("/breaks")
async def breaks(socket: WebSocket) -> None:
    await socket.accept()
    raise RuntimeError("after the handshake")
''',
)
MOUNTED = Edit(
    "src/my_service/main.py",
    "    return create_app(load(Settings), without=set())\n",
    """    from pathlib import Path

    from fastapi import Request, WebSocket
    from starlette.staticfiles import StaticFiles

    made, sub = create_app(load(Settings), without=set()), FastAPI()

    @sub.get("/x/{y}")
    async def inner(y: int) -> int:
        return y

    @sub.post("/take")
    async def take(value: dict[str, int]) -> int:
        return 1

    @sub.post("/read")
    async def read(request: Request) -> int:
        return len(await request.body())

    @sub.websocket("/closes")
    async def closes(socket: WebSocket) -> None:
        await socket.close()

    async def nothing(scope, receive, send) -> None:
        pass

    made.mount("/sub", sub)
    made.mount("/nothing", nothing)
    made.mount("/files", StaticFiles(directory=Path(__file__).parent))
    return made
""",
)
HANDSHAKE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}


@dataclass(frozen=True)
class Reply:
    """A response: its status, all its headers and its body."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes

    @property
    def code(self) -> str:
        """The code of a problem document."""
        return str(json.loads(self.body)["code"])

    def header(self, name: str) -> str:
        """The only header of that name."""
        (value,) = [value for key, value in self.headers if key.lower() == name]
        return value


def ask(service: Service, method: str, target: str, *lines: str, version: str = "1.1") -> Reply:
    """Send a request whose headers are the given lines, byte by byte as they are."""
    head = "".join(f"{line}\r\n" for line in (f"{method} {target} HTTP/{version}", *lines))
    with socket.create_connection(("127.0.0.1", service.port), 10) as connection:
        connection.sendall(f"{head}\r\n".encode("latin-1"))
        response = http.client.HTTPResponse(connection, method=method)
        response.begin()
        return Reply(response.status, response.getheaders(), response.read())


def shake(service: Service, target: str, *lines: str) -> Reply:
    """Try to open a WebSocket."""
    return ask(service, "GET", target, *lines, *(f"{name}: {value}" for name, value in HANDSHAKE.items()))


def lines_of(service: Service) -> list[dict[str, Any]]:
    """The lines of its log."""
    return [json.loads(line) for line in service.log.splitlines() if line.startswith("{")]


def access_line(service: Service, request_id: str) -> dict[str, Any]:
    """The only access line of a request, once it is there."""

    def found() -> list[dict[str, Any]]:
        return [e for e in lines_of(service) if e["event"] == "request" and e["request_id"] == request_id]

    service.process.wait_until(lambda: bool(found()), 10)
    (line,) = found()
    return line


@contextmanager
def opened(project: Project, folder: Path, *changes: Change, env: Mapping[str, str] | None = None) -> Iterator[Service]:
    """Run the service with those routes."""
    made = project.variant(folder / "made", KINDS, MOUNTED, *changes)
    settings = {"LOG_FORMAT": "json", "LOG_LEVEL": "DEBUG", "SHUTDOWN_DRAIN_SECONDS": "0"}
    with made.serve(folder / "run", settings | dict(env or {})) as service:
        yield service
