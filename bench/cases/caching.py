"""What a value costs by way of the cache: a hit, a miss, a stampede and a server that hangs, against its source alone.

One service on a real Redis; the source takes 20 ms, as a slow query does. `stampede` asks 300 times at once for a new
key, against 300 calls of the source.
"""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from bench import measure, project
from bench.cases.overhead import PRODUCTION_LIKE, commands
from bench.harness import BenchError, Case, Limit, Measures, Result, interleave, paired_ratio
from bench.load import load
from bench.server import HOST, Server, serving
from tests.servers.process import free_port
from tests.servers.redis import Redis

HIT = 0.5  # of the time that the source takes
HUNG = 1.5  # mean over a whole round, the calls that find it hung included
ROUTES = """
import asyncio
import itertools

from fastapi import APIRouter, Request

from ...platform.state import CachePolicy, state_of

router = APIRouter(prefix="/bench")
VALUE = CachePolicy("value", dict, seconds=300)
numbers = itertools.count()


async def source() -> dict[str, str]:
    await asyncio.sleep(0.02)
    return {"hello": "world"}


@router.get("/direct")
async def direct() -> dict[str, str]:
    return await source()


@router.get("/hit")
async def hit(request: Request) -> dict[str, str]:
    return await state_of(request.app).cache.get_or_load(VALUE, "one", source, tags=["all"])


@router.get("/miss")
async def miss(request: Request) -> dict[str, str]:
    return await state_of(request.app).cache.get_or_load(VALUE, str(next(numbers)), source, tags=["all"])


@router.get("/stampede")
async def stampede(request: Request) -> dict[str, str]:
    cache, key = state_of(request.app).cache, str(next(numbers))
    await asyncio.gather(*(cache.get_or_load(VALUE, key, source, tags=["all"]) for _ in range(300)))
    return {}


@router.get("/stampede/direct")
async def stampede_direct() -> dict[str, str]:
    await asyncio.gather(*(source() for _ in range(300)))
    return {}
"""


def prepare(service: Path) -> None:
    """Add the routes."""
    (package,) = (service / "src").iterdir()
    feature = package / "features" / "bench"
    feature.mkdir()
    (feature / "__init__.py").write_text('"""The routes under measurement."""\n')
    (feature / "routes.py").write_text('"""Values with and without the cache."""\n' + ROUTES)


def measured(server: Server, path: str, seconds: float, connections: int = 8) -> Measures:
    """Milliseconds that a request takes on average, and its CPU."""
    before = measure.cpu_seconds(server.pid)
    seen = load(HOST, server.port, path, seconds=seconds, connections=connections)
    spent = measure.cpu_seconds(server.pid) - before
    if seen.errors or not seen.requests:
        raise BenchError(f"{path}: {seen.errors} requests were not answered with 200")
    return {
        "mean": seen.seconds * connections / seen.requests * 1e3,
        "cpu_per_request": spent / seen.requests * 1e6,
    }


def hung(server: Server, redis: Redis, seconds: float) -> Measures:
    """The same as a miss, from the moment at which the server stops to answer; it is well again afterwards."""
    redis.pause()
    try:
        return measured(server, "/bench/miss", seconds)
    finally:
        redis.resume()
        time.sleep(2)  # a probe is answered


@contextmanager
def subjects(folder: Path, seconds: float) -> Iterator[dict[str, Callable[[], Measures]]]:
    template = project.export(folder / "template")
    service = folder / "service"
    tools = project.make_service(template, service, prepare)
    port = free_port()
    with Redis() as redis:
        env = {"PATH": os.defpath, "HOST": HOST, "PORT": str(port), "CACHE_URL": redis.url()} | PRODUCTION_LIKE
        command = commands(service, tools, port)["service"]
        with serving(command, port, "/bench/direct", cwd=service, env=env, log=folder / "log") as server:
            yield {
                "direct": partial(measured, server, "/bench/direct", seconds),
                "hit": partial(measured, server, "/bench/hit", seconds),
                "miss": partial(measured, server, "/bench/miss", seconds),
                "hung": partial(hung, server, redis, seconds),
                "stampede direct": partial(measured, server, "/bench/stampede/direct", seconds, 1),
                "stampede": partial(measured, server, "/bench/stampede", seconds, 1),
            }


def run(rounds: int, full: bool) -> Result:
    with TemporaryDirectory() as folder, subjects(Path(folder), 10.0 if full else 4.0) as sides:
        for side in sides.values():
            side()
        found = interleave(sides, rounds)
    ratio = {name: paired_ratio(found, name, "direct", "mean") for name in ("hit", "miss", "hung")}
    ratio["stampede"] = paired_ratio(found, "stampede", "stampede direct", "mean")
    return Result(
        unit={"mean": "ms", "cpu_per_request": "us"},
        rounds=found,
        ratio=ratio,
        limits={"hit": Limit("ceiling", HIT, ratio["hit"]), "hung": Limit("ceiling", HUNG, ratio["hung"])},
    )


CASE = Case(
    name="caching",
    limit=f"a hit takes at most {HIT} times its source of 20 ms; a hung Redis makes that at most {HUNG} times",
    run=run,
)
