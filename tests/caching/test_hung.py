"""A cache that hangs costs requests next to nothing: fifty workers go on at the pace of the source."""

import asyncio
import statistics
import time
from pathlib import Path

import pytest

from tests.caching.conftest import FEATURE, Lab, lab, turns_red
from tests.plant import Feature
from tests.projects import Project
from tests.proof import count
from tests.sabotage import Body
from tests.servers.redis import Redis

pytestmark = [pytest.mark.servers, pytest.mark.timing]
WORKERS = 50
SOURCE = 20  # ms
MARGIN = 30  # ms
LONGEST = 1_000  # ms, for whoever is under way when the cache hangs
THINK = 0.03  # seconds between two requests of a worker: a machine that is full measures its own queue


@pytest.fixture(scope="session")
def as_emitted(project: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The laboratory in a service that waits as long as it is emitted to."""
    return project.variant(tmp_path_factory.mktemp("hung") / "service", Feature("lab", FEATURE))


def pace(made: Lab, seconds: float, path: str) -> list[float]:
    """Ask for new keys, each of the workers on one connection: milliseconds of each request."""
    taken: list[float] = []
    until = time.monotonic() + seconds

    async def work(worker: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", made.service.port)
        await asyncio.sleep(worker / WORKERS * THINK)
        number = 0
        while (begun := time.monotonic()) < until:
            number += 1
            writer.write(f"GET {path}-{worker}-{number} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200"), head
            length = next(int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:"))
            await reader.readexactly(length)
            taken.append((time.monotonic() - begun) * 1000)
            await asyncio.sleep(THINK)
        writer.close()

    async def all_of_them() -> None:
        await asyncio.gather(*(work(worker) for worker in range(WORKERS)))

    asyncio.run(all_of_them())
    return taken


def p99(taken: list[float]) -> float:
    return statistics.quantiles(taken, n=100)[-1]


def keeps_its_pace(made: Lab, seconds: float) -> None:
    assert made.server
    made.source(ms=SOURCE)
    quiet = sum('"event":"request"' not in line for line in made.service.log.splitlines())
    alone = p99(pace(made, 4, "/lab/direct/alone"))  # the source without any cache, on this machine now
    made.server.pause()
    hung = pace(made, seconds, "/lab/get/plain/hung")
    late = sum(each > 200 for each in hung)
    print(f"\np99 of the source {alone:.0f} ms; hung: p99 {p99(hung):.0f} ms, {late} of {len(hung)} late")
    assert p99(hung) < alone + MARGIN
    assert max(hung) < LONGEST
    lines = sum('"event":"request"' not in line for line in made.service.log.splitlines())
    assert lines - quiet < 10
    made.server.resume()
    made.source(ms=0)
    made.wait(lambda: made.hits("again"))


def test_a_hung_redis_costs_fifty_workers_next_to_nothing(as_emitted: Project, tmp_path: Path, redis: Redis) -> None:
    with lab(as_emitted, tmp_path, redis) as made:
        keeps_its_pace(made, count(15, 60))  # the 50 that it takes to notice are few of them


@pytest.mark.sabotage
def test_without_a_breaker_a_hung_redis_holds_all_up(as_emitted: Project, tmp_path: Path, redis: Redis) -> None:
    with lab(as_emitted, tmp_path, redis, Body("cache:Breaker.record", "return")) as made:
        turns_red(lambda: keeps_its_pace(made, 8), made)


def test_a_healthy_redis_under_a_cold_rush_is_never_away(as_emitted: Project, tmp_path: Path, redis: Redis) -> None:
    """Right after the start, 300 keys at once: connections are few, and the event loop is late."""
    with lab(as_emitted, tmp_path, redis) as made:
        for number in range(count(3, 20)):
            assert made.rush([f"/lab/get/plain/cold-{number}-{key}" for key in range(300)]) == {200: 300}
        time.sleep(2)  # three probes would have failed by now
        assert made.lines("cache is unavailable") == 0
        assert made.hits("warm")
