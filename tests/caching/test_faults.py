"""Cache servers that are refused, hung, killed, restarted, full or slow: every value comes, and all mends itself."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path

import pytest

from tests.caching.conftest import Lab, Server, lab, new, turns_red
from tests.projects import Project
from tests.sabotage import Body, Sabotage, Value
from tests.servers.proxy import Proxy
from tests.servers.redis import Redis

pytestmark = pytest.mark.servers
REQUESTS = 60


@contextmanager
def killed(server: Server) -> Iterator[None]:
    """Nobody listens; it comes back empty."""
    server.kill()
    try:
        yield
    finally:
        server.restart()


@contextmanager
def hung(server: Server) -> Iterator[None]:
    """It takes everything and never answers."""
    server.pause()
    try:
        yield
    finally:
        server.resume()


@contextmanager
def full(server: Server) -> Iterator[None]:
    """It refuses every write."""
    server.fill()
    try:
        yield
    finally:
        server.drain()


Fault = Callable[[Server], AbstractContextManager[None]]
FAULTS: list[Fault] = [killed, hung, full]


def survives(made: Lab, fault: Fault) -> None:
    """Values come, the log says it once, and the cache is used again when the fault is over."""
    assert made.server
    name = new(fault.__name__)
    paths = [f"/lab/get/plain/{name}-{number}" for number in range(REQUESTS)]
    away, back, others = made.lines("cache is unavailable"), made.lines("cache is available again"), quiet(made)
    with fault(made.server):
        assert made.rush(paths) == {200: REQUESTS}
        made.forget()
        made.wait(lambda: made.lines("cache is unavailable") == away + 1, 5)
        assert made.calls(f"{name}-0") == 1
        assert made.rush(paths) == {200: REQUESTS}
        assert made.calls(f"{name}-0") == 2  # it is left alone
        assert made.get(f"{name}-0")["key"] == f"{name}-0"
    made.wait(lambda: made.lines("cache is available again") == back + 1)
    made.wait(lambda: made.hits(name))
    assert quiet(made) - others < 10


def quiet(made: Lab) -> int:
    """How many lines the log has besides those of requests."""
    return sum('"event":"request"' not in line for line in made.service.log.splitlines())


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_costs_no_answer_and_mends_itself(running: Lab, fault: Fault) -> None:
    survives(running, fault)


def test_a_restart_goes_unnoticed(running: Lab) -> None:
    assert running.server
    assert running.hits("before")
    running.server.restart()
    for number in range(20):
        running.get(f"after-{number}")
    running.wait(lambda: running.hits("after"))


def leaves_it_alone(made: Lab, way: Proxy) -> None:
    """A server whose answers take longer than a call may, until it is quick again."""
    way.delay = 0.4
    assert made.rush([f"/lab/get/plain/slow-{number}" for number in range(30)]) == {200: 30}
    made.wait(lambda: made.lines("cache is unavailable") == 1, 5)
    way.delay = 0.0
    made.wait(lambda: made.hits("quick"))


@pytest.mark.parametrize("kind", ["redis", "memcached"])
def test_a_slow_server_is_left_alone_until_it_is_quick_again(
    request: pytest.FixtureRequest, tmp_path: Path, kind: str
) -> None:
    server, project = request.getfixturevalue(kind), request.getfixturevalue(f"on_{kind}")
    with Proxy(server.port) as way, lab(project, tmp_path, server, env=by_way_of(way, server)) as made:
        leaves_it_alone(made, way)


def by_way_of(way: Proxy, server: Server) -> dict[str, str]:
    return {"CACHE_URL": server.url().replace(str(server.port), str(way.port))}


def sees_the_change(made: Lab) -> None:
    """A value that changes while the server hangs, which keeps the old one."""
    assert made.server
    made.source(version=1)
    assert made.get("changing")["version"] == 1
    assert made.hits("changing")
    with hung(made.server):
        made.rush([f"/lab/get/plain/hung-{number}" for number in range(20)])  # from now on nobody asks it
        made.source(version=2)
        made.forget()
        assert made.get("changing")["version"] == 2
    made.wait(lambda: made.hits("anything"))
    assert made.get("changing")["version"] == 2
    assert made.calls("changing") == 3
    made.source(version=1)


def test_an_invalidation_that_the_server_missed_is_made_up_for(running: Lab) -> None:
    sees_the_change(running)


@pytest.mark.sabotage
@pytest.mark.parametrize(
    ("sabotage", "proof"),
    [
        (Value("cache:FAILED_PROBES", "1_000_000"), partial(survives, fault=hung)),
        (Body("cache:ReadThrough.probe", "await self.backend.start()"), partial(survives, fault=full)),
        (Body("cache:ReadThrough.probe", "self.invalidations.clear()\nawait original()"), sees_the_change),
    ],
    ids=["a breaker that says nothing", "a probe that does not write", "an invalidation that is dropped"],
)
def test_a_sabotaged_cache_fails_the_proof(
    on_redis: Project, tmp_path: Path, redis: Redis, sabotage: Sabotage, proof: Callable[[Lab], None]
) -> None:
    with lab(on_redis, tmp_path, redis, sabotage) as made:
        turns_red(partial(proof, made), made)


@pytest.mark.sabotage
def test_who_waits_too_long_does_not_leave_a_slow_server_alone(on_redis: Project, tmp_path: Path, redis: Redis) -> None:
    patient = Value("cache:CALL_SECONDS", "2.5")
    with Proxy(redis.port) as way, lab(on_redis, tmp_path, redis, patient, env=by_way_of(way, redis)) as made:
        turns_red(lambda: leaves_it_alone(made, way), made)
