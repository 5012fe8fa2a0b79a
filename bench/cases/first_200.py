"""The first minutes of a user: from `copier copy` to a service that answers."""

import time
from pathlib import Path
from tempfile import TemporaryDirectory

from bench import project
from bench.harness import Case, Limit, Measures, Result, interleave, medians
from bench.server import HOST, serving
from tests.servers.process import free_port

LIMIT_SECONDS = 60.0


def first_200(template: Path) -> Measures:
    """Copy into a new folder and type `make dev` there."""
    port = free_port()
    with TemporaryDirectory() as folder:
        service = Path(folder) / "service"
        env = project.environment() | {"HOST": HOST, "PORT": str(port)}
        began = time.perf_counter()
        project.copy(template, service)
        copied = time.perf_counter()
        log = Path(folder) / "dev.log"
        with serving(["make", "dev"], port, "/livez", cwd=service, env=env, log=log):
            answered = time.perf_counter()
    return {"wall": answered - began, "copy": copied - began, "make_dev": answered - copied}


def run(rounds: int, full: bool) -> Result:
    with TemporaryDirectory() as folder:
        template = project.export(Path(folder) / "template")
        first_200(template)  # fills the cache of packages: a download says nothing about us
        found = interleave({"service": lambda: first_200(template)}, rounds)
    wall = medians(found)["service"]["wall"]
    return Result(
        unit={"wall": "s", "copy": "s", "make_dev": "s"},
        rounds=found,
        limits={"wall": Limit("ceiling", LIMIT_SECONDS, wall)},
        notes={"package cache": "warm"},
    )


CASE = Case(
    name="first_200",
    limit=f"from `copier copy` to the first 200 of `make dev`: at most {LIMIT_SECONDS:g} s",
    run=run,
)
