"""Uploads: each route may have its own limit, forms have limits, and each refusal is a problem document."""

from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.plant import Feature
from tests.projects import Project, Service
from tests.sabotage import Body, Sabotage, Value

pytestmark = pytest.mark.servers
MEGABYTE = 1_000_000
UPLOADS = Feature(
    "uploads",
    '''"""Uploads."""

from typing import Annotated, Any

from fastapi import APIRouter, Body, Form, UploadFile

router = APIRouter(prefix="/uploads")


@router.post("/large", max_body_size=3_000_000, form_limits={"max_files": 2})
async def large(files: list[UploadFile]) -> int:
    return sum([len(await file.read()) for file in files])


@router.post("/small", max_body_size=10)
async def small(body: Annotated[Any, Body()]) -> str:
    return "small"


@router.post("/unread", max_body_size=10)
async def unread() -> str:
    return "unread"


@router.post("/form")
async def form(names: Annotated[list[str], Form()]) -> int:
    return len(names)


@router.post("/files")
async def files(files: list[UploadFile]) -> int:
    return len(files)
''',
)


@pytest.fixture(scope="module")
def uploads(bare_project: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A service with uploads. Do not change it: make a `variant`."""
    return bare_project.variant(tmp_path_factory.mktemp("uploads") / "service", UPLOADS)


@pytest.fixture(scope="module")
def service(uploads: Project, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """It runs; tests leave it running."""
    with uploads.serve(tmp_path_factory.mktemp("run")) as running:
        yield running


def refused(answer: httpx.Response, status: int, code: str) -> None:
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json"), answer.text
    assert answer.json()["code"] == code


def files(count: int, size: int) -> dict[str, object]:
    return {"files": [("files", (f"{number}.bin", b"x" * size)) for number in range(count)]}


def chunks(size: int) -> Iterator[bytes]:
    for _ in range(size // 1000):
        yield b"x" * 1000


def raised(client: httpx.Client) -> None:
    """A route may take more than `MAX_BODY_BYTES`, with and without a declared length, but no more than it says."""
    answer = client.post("/uploads/large", **files(1, 2 * MEGABYTE))  # type: ignore[arg-type]
    assert (answer.status_code, answer.json()) == (200, 2 * MEGABYTE)
    streamed = client.build_request("POST", "/uploads/large", **files(1, 2 * MEGABYTE))  # type: ignore[arg-type]
    head = {"Content-Type": streamed.headers["content-type"]}
    assert client.post("/uploads/large", content=iter([streamed.read()]), headers=head).json() == 2 * MEGABYTE
    refused(client.post("/uploads/large", content=b"x" * 3_000_001, headers=head), 413, "content-too-large")
    refused(client.post("/v1/items", json={"name": "x" * 2 * MEGABYTE}), 413, "content-too-large")


def lowered(client: httpx.Client) -> None:
    """A route may take less, and who does not read its body refuses it, too."""
    assert client.post("/uploads/small", json=12345).status_code == 200
    for path in ("/uploads/small", "/uploads/unread"):
        refused(client.post(path, content=b"x" * 11), 413, "content-too-large")
    refused(client.post("/uploads/small", content=chunks(2000)), 413, "content-too-large")
    for path in ("/nowhere", "/uploads/unread"):
        refused(client.post(path, content=b"x" * 2 * MEGABYTE), 413, "content-too-large")
        refused(client.post(path, content=b"x" * 4 * MEGABYTE), 413, "content-too-large")


def counted(client: httpx.Client) -> None:
    """A form has at most 100 fields and 20 files, or what its route says."""
    assert client.post("/uploads/form", data={"names": ["x"] * 100}).json() == 100
    refused(client.post("/uploads/form", data={"names": ["x"] * 101}), 400, "bad-request")
    assert client.post("/uploads/files", **files(20, 1)).json() == 20  # type: ignore[arg-type]
    refused(client.post("/uploads/files", **files(21, 1)), 400, "bad-request")  # type: ignore[arg-type]
    refused(client.post("/uploads/large", **files(3, 1)), 400, "bad-request")  # type: ignore[arg-type]


Proof = Callable[[httpx.Client], None]
PROOFS: list[Proof] = [counted, lowered, raised]


@pytest.mark.parametrize("proof", PROOFS, ids=lambda proof: proof.__name__)
def test_a_body_has_limits_and_its_route_may_change_them(service: Service, proof: Proof) -> None:
    proof(service.client)


@pytest.mark.sabotage
@pytest.mark.parametrize(
    ("sabotages", "broken"),
    [
        ((Body("security:RequestLimits._limited", "await self.limited(scope, receive, send)"),), {lowered, raised}),
        (
            (
                Body("security:RequestLimits.__init__", "original(app, settings, [], origins)"),
                Value("__init__:MAX_FORM_FILES", "1000"),
            ),
            {counted, raised, lowered},
        ),
    ],
    ids=["plain text", "one limit for all"],
)
def test_exactly_the_sabotaged_promises_fail(
    uploads: Project, tmp_path: Path, sabotages: tuple[Sabotage, ...], broken: set[Proof]
) -> None:
    failed = set()
    with uploads.variant(tmp_path / "sick", *sabotages).serve(tmp_path / "run") as running:
        for proof in PROOFS:
            try:
                proof(running.client)
            except (AssertionError, KeyError, ValueError):
                failed.add(proof)
    assert failed == broken
