"""What an entity tag costs and a 304 saves: one answer of 16 KiB without a policy, with one, and known to the client.

The route computes nothing, so that only the cache's share shows: a real route's work comes on top of all three.
"""

import http.client
import os
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from bench import project
from bench.cases.overhead import PRODUCTION_LIKE, WARM_SECONDS, commands
from bench.harness import Case, Limit, Measures, Result, interleave, paired_ratio
from bench.server import HOST, serving
from tests.servers.process import free_port

CEILINGS = {"200": 1.35, "304": 1.25}
SIZE = 16_384  # bytes
ROUTES = f"""
from fastapi import APIRouter, Response

from ...platform.http_cache.policy import HttpPolicy

router = APIRouter()
BODY = b"x" * {SIZE}


@router.get("/plain")
async def plain() -> Response:
    return Response(BODY)


@router.get("/kept")
@HttpPolicy(max_age=60)
async def kept() -> Response:
    return Response(BODY)
"""
SIDES = {"plain": ("/plain", 200), "200": ("/kept", 200), "304": ("/kept", 304)}


def prepare(service: Path) -> None:
    """Add the feature with both routes."""
    (package,) = (service / "src").iterdir()
    feature = package / "features" / "bench"
    feature.mkdir()
    (feature / "__init__.py").write_text('"""The routes under measurement."""\n')
    (feature / "routes.py").write_text(ROUTES.lstrip())


def tag(port: int) -> str:
    connection = http.client.HTTPConnection(HOST, port, timeout=5)
    connection.request("GET", "/kept")
    found = connection.getresponse().getheader("ETag", "")
    connection.close()
    return found


def measured(name: str, service: Path, tools: Path, seconds: float) -> Measures:
    """A fresh process: start, warm up, load."""
    path, status = SIDES[name]
    port = free_port()
    env = {"PATH": os.defpath, "HOST": HOST, "PORT": str(port)} | PRODUCTION_LIKE
    log = service / f"{name}.log"
    log.unlink(missing_ok=True)  # lines of the rounds before would only fill the disk
    with serving(commands(service, tools, port)["service"], port, path, cwd=service, env=env, log=log) as server:
        headers = {"If-None-Match": tag(port)} if status == 304 else {}
        server.cpu_per_request(path, WARM_SECONDS, headers=headers, status=status)
        cpu = server.cpu_per_request(path, seconds, headers=headers, status=status)
    return {"cpu_per_request": cpu * 1e6, "content": 0.0 if status == 304 else float(SIZE)}


def run(rounds: int, full: bool) -> Result:
    seconds = 6.0 if full else 2.0
    with TemporaryDirectory() as folder:
        template = project.export(Path(folder) / "template")
        service = Path(folder) / "service"
        tools = project.make_service(template, service, prepare)
        sides = {name: partial(measured, name, service, tools, seconds) for name in SIDES}
        for side in sides.values():
            side()  # compiles what the installation did not, and shows a mistake before the rounds
        found = interleave(sides, rounds)
    ratio = {name: paired_ratio(found, name, "plain", "cpu_per_request") for name in CEILINGS}
    return Result(
        unit={"cpu_per_request": "us", "content": "bytes"},
        rounds=found,
        ratio=ratio,
        limits={name: Limit("ceiling", bound, ratio[name]) for name, bound in CEILINGS.items()},
    )


CASE = Case(
    name="revalidation",
    limit="an entity tag over 16 KiB and a 304 cost at most 1.35 and 1.25 times the CPU of a plain answer",
    run=run,
)
