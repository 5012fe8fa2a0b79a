"""Services that are watched: each kind of instrumentation, exporting to a collector of the kit."""

import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.plant import Feature
from tests.projects import Edit, Project, Service, render
from tests.servers.otlp import Collector, Span, open_collector

KINDS = ("contrib", "native")
DATABASE = "schema.sqlite"
# Quick, so that tests need not wait; the bounds of the machinery stay as they are.
QUICK = {
    "LOG_FORMAT": "json",
    "OTEL_BSP_SCHEDULE_DELAY": "50",
    "OTEL_METRIC_EXPORT_INTERVAL": "200",
    "SHUTDOWN_DRAIN_SECONDS": "0",
}
# Of the services that tests share: who it is, and which headers its spans have.
TOLD = {
    "ENVIRONMENT": "staging",
    "GIT_COMMIT": "0123abc",
    "K8S_NAMESPACE_NAME": "shop",
    "K8S_POD_NAME": "orders-7",
    "OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SERVER_REQUEST": "authorization,x-note,x-harmless",
    "OTEL_RESOURCE_ATTRIBUTES": "team=blue%20one,service.version=2.0",
}
ROUTES = '''"""Routes for the proofs of telemetry."""

import os
import time
from collections.abc import AsyncIterator

import httpx2
import structlog
from fastapi import APIRouter, BackgroundTasks, WebSocket
from fastapi.responses import StreamingResponse

router = APIRouter(prefix="/watch")


@router.api_route("/plain/{name}", methods=["GET", "POST"])
async def plain(name: str) -> dict[str, str]:
    structlog.get_logger("feature").info("inside", password="hunter2", harmless="seen")
    return {"name": name}


@router.get("/sync")
def sync() -> dict[str, str]:
    return {}


@router.get("/stream")
async def stream() -> StreamingResponse:
    async def parts() -> AsyncIterator[bytes]:
        for _ in range(3):
            yield b"part"

    return StreamingResponse(parts())


@router.get("/boom")
async def boom() -> None:
    raise RuntimeError("harmless password=hunter2")


@router.get("/later")
async def later(tasks: BackgroundTasks) -> dict[str, str]:
    tasks.add_task(time.sleep, 0.5)
    return {}


@router.get("/block")
async def block() -> dict[str, str]:
    time.sleep(0.6)
    return {}


@router.get("/call")
async def call() -> dict[str, str]:
    async with httpx2.AsyncClient() as client:
        answer = await client.get(os.environ["CALL_URL"] + "/far?token=hunter2")
    return {"status": str(answer.status_code)}


@router.websocket("/socket")
async def socket(peer: WebSocket) -> None:
    await peer.accept()
    for _ in range(3):
        await peer.send_text(await peer.receive_text())
    await peer.close()


@router.websocket("/crash")
async def crash(peer: WebSocket) -> None:
    raise RuntimeError("before the handshake")
'''
MOUNTED = Edit(
    "src/my_service/main.py",
    "    return create_app(load(Settings), without=set())\n",
    """    made, sub = create_app(load(Settings), without=set()), FastAPI()

    @sub.get("/x/{y}")
    async def inner(y: str) -> dict[str, str]:
        return {"y": y}

    made.mount("/sub", sub)
    made.mount("/tenants/{tenant}", sub)
    return made
""",
)


@dataclass(frozen=True)
class Watched:
    """A service and the collector that it exports to."""

    service: Service
    collector: Collector

    def ask(
        self, path: str, *, sampled: bool = True, headers: Mapping[str, str] | None = None
    ) -> tuple[httpx.Response, str, str]:
        """Ask with a `traceparent` of a caller: the answer, its trace id and its span id."""
        trace_id, span_id = secrets.token_hex(16), secrets.token_hex(8)
        parent = {"traceparent": f"00-{trace_id}-{span_id}-{sampled:02x}"}
        answer = self.service.client.get(path, headers=parent | dict(headers or {}))
        return answer, trace_id, span_id

    def trace(self, trace_id: str) -> list[Span]:
        """All spans of a trace: they leave in turn, so that those of a later request have none of it behind them."""
        self._await(trace_id)
        self._await(self.ask("/watch/sync")[1])
        return [span for span in self.collector.spans if span.trace_id == trace_id]

    def _await(self, trace_id: str) -> None:
        self.collector.wait_until(lambda: any(span.trace_id == trace_id for span in self.collector.server_spans()))

    def lines(self, text: str) -> int:
        return self.service.log.count(text)


@pytest.fixture(scope="session")
def kinds(template: Path, project: Project, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Project]:
    """A service of each kind, with the routes and a database with the schema, to be copied."""
    schema = tmp_path_factory.mktemp("schema") / DATABASE
    project.cli("migrate", env={"DATABASE_URL": f"sqlite:///{schema}"}, check=True)
    contrib = project.variant(tmp_path_factory.mktemp("contrib") / "service")
    native = Project(render(template, tmp_path_factory.mktemp("native"), http_instrumentation="native"))
    native.venv = project.venv  # it needs nothing that contrib does not install
    for made in (contrib, native):
        for change in (Feature("watch", ROUTES), MOUNTED):
            change.apply(made.root)
        shutil.copy(schema, made.root / DATABASE)
    return {"contrib": contrib, "native": native}


@contextmanager
def watch(project: Project, folder: Path, collector: Collector, **env: str) -> Iterator[Watched]:
    """Serve with telemetry on; everything is sampled that has no caller who says otherwise."""
    database = shutil.copy(project.root / DATABASE, folder / DATABASE)
    where = {"CALL_URL": collector.url, "DATABASE_URL": f"sqlite:///{database}"}
    with project.serve(folder / "run", where | {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url} | QUICK | env) as service:
        yield Watched(service, collector)


EACH = ("contrib", pytest.param("native", marks=pytest.mark.wide))


@pytest.fixture(scope="module", params=EACH)
def watched(
    request: pytest.FixtureRequest, kinds: dict[str, Project], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Watched]:
    """A service of each kind in turn, shared by the tests of a module: they leave it running."""
    folder = tmp_path_factory.mktemp("w")
    with open_collector() as collector, watch(kinds[request.param], folder, collector, **TOLD) as made:
        yield made


@pytest.fixture(params=EACH)
def kind(request: pytest.FixtureRequest, kinds: dict[str, Project]) -> Project:
    """The project of each kind in turn."""
    return kinds[request.param]
