"""What the platform costs a request, a start and a byte of memory, against FastAPI alone.

Both run in the venv of the emitted service and serve the same route. Throughput is compared at
equal CPU: requests per second depend on the neighbours, CPU seconds per request hardly do.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from bench import project
from bench.harness import Case, Limit, Measures, Result, interleave, paired_ratio
from bench.server import HOST, Server, serving
from tests.servers.process import free_port

FLOOR = 0.55
WARM_SECONDS = 1.0
PATH = "/bench"
# FastAPI alone as its documentation shows an application of more than one file, with no option changed; and the least
# that it can be made to do, for comparison.
BARE = """
from fastapi import FastAPI

from {package}.features.bench.routes import hello, router

app = FastAPI()
app.include_router(router)
stripped = FastAPI(telemetry={{"tracing": False, "metrics": False, "logs": False}})
stripped.get("/bench")(hello)
"""
ROUTES = """
from fastapi import APIRouter

router = APIRouter()


@router.get("/bench")
async def hello() -> dict[str, str]:
    return {"hello": "world"}
"""
# As in production, without its addresses: JSON lines into a file, nothing for a person's eyes.
PRODUCTION_LIKE = {"ENVIRONMENT": "staging", "LOG_FORMAT": "json", "SHUTDOWN_DRAIN_SECONDS": "0"}


def prepare(service: Path) -> None:
    """Add the feature that serves the route, and the bare application beside the service."""
    (package,) = (service / "src").iterdir()
    feature = package / "features" / "bench"
    feature.mkdir()
    (feature / "__init__.py").write_text('"""The route under measurement."""\n')
    (feature / "routes.py").write_text(ROUTES.lstrip())
    (service / "bare.py").write_text(BARE.lstrip().format(package=package.name))


def commands(service: Path, tools: Path, port: int) -> dict[str, list[str | Path]]:
    (package,) = (service / "src").iterdir()
    slug = package.name.replace("_", "-")
    address = ["--host", HOST, "--port", str(port)]
    options = ["--loop", "uvloop", "--http", "httptools", "--no-access-log"]
    return {
        "bare": [tools / "uvicorn", "bare:app", *address, *options],
        "stripped": [tools / "uvicorn", "bare:stripped", *address, *options],
        "service": [tools / slug, "serve"],
    }


@contextmanager
def warm(name: str, service: Path, tools: Path, env: Mapping[str, str]) -> Iterator[Server]:
    """A fresh process that has answered for a second."""
    port = free_port()
    env = {"PATH": os.defpath, "HOST": HOST, "PORT": str(port), **PRODUCTION_LIKE, **env}
    log = service / f"{name}.log"
    log.unlink(missing_ok=True)  # lines of the rounds before would only fill the disk
    with serving(commands(service, tools, port)[name], port, PATH, cwd=service, env=env, log=log) as server:
        server.cpu_per_request(PATH, WARM_SECONDS)
        yield server


def measured(name: str, service: Path, tools: Path, seconds: float, env: Mapping[str, str]) -> Measures:
    """What the requests, the start and the memory of a fresh process cost."""
    with warm(name, service, tools, env) as server:
        return {
            "cpu_per_request": server.cpu_per_request(PATH, seconds) * 1e6,
            "start_cpu": server.start_cpu,
            "resident": server.resident_bytes / 2**20,
        }


def run(rounds: int, full: bool) -> Result:
    seconds = 10.0 if full else 4.0
    with TemporaryDirectory() as folder:
        template = project.export(Path(folder) / "template")
        service = Path(folder) / "service"
        tools = project.make_service(template, service, prepare)
        sides = {name: partial(measured, name, service, tools, seconds, {}) for name in ("bare", "service")}
        for side in sides.values():
            side()  # compiles what the installation did not, and shows a mistake before the rounds
        found = interleave(sides, rounds)
    throughput = paired_ratio(found, "bare", "service", "cpu_per_request")
    return Result(
        unit={"cpu_per_request": "us", "start_cpu": "s", "resident": "MiB"},
        rounds=found,
        ratio={
            "throughput": throughput,
            "start_cpu": paired_ratio(found, "service", "bare", "start_cpu"),
            "resident": paired_ratio(found, "service", "bare", "resident"),
        },
        limits={"throughput": Limit("floor", FLOOR, throughput)},
    )


CASE = Case(
    name="overhead",
    limit=f"at equal CPU the service answers at least {FLOOR} times as often as FastAPI alone",
    run=run,
)
