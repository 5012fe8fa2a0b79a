"""The service with a laboratory: a source that can be slow or fail, behind each kind of policy, on real servers."""

import asyncio
import re
import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.plant import Feature
from tests.projects import Change, Project, Service, render
from tests.sabotage import Value
from tests.servers.memcached import Memcached
from tests.servers.postgres import Postgres
from tests.servers.redis import Redis
from tests.service.conftest import migrated

Server = Redis | Memcached
# The gate does not wait as long between two looks at what is away.
QUICK = (Value("cache:PROBE_PAUSE_SECONDS", "0.1"), Value("secrets.files:REFRESH_SECONDS", "0.2"))
# What a service logs whose sabotage is broken itself: then a proof is red for nothing.
BROKEN = re.compile(r"(Attribute|Name|Syntax|Type|UnboundLocal)Error")
FEATURE = '''"""Values from a source that can be told how to behave."""

import asyncio
from typing import Any

from fastapi import APIRouter, Request
from pydantic import BaseModel

from ...platform.problems import NotFound, Unavailable
from ...platform.state import CachePolicy, state_of

router = APIRouter(prefix="/lab")


class Thing(BaseModel):
    key: str
    version: int
    owner: str | None = None


class Newer(Thing):
    colour: str = "red"


POLICIES = {
    "brief": CachePolicy("brief", Thing, seconds=0.3, stale_seconds=60),
    "dear": CachePolicy("dear", Thing, seconds=60, lock=True),
    "mine": CachePolicy("mine", Thing, seconds=60, private=True),
    "newer": CachePolicy("plain", Newer, seconds=60),  # what `plain` is in the next release
    "plain": CachePolicy("plain", Thing, seconds=60),
}
FAILURES = {"gone": NotFound("gone"), "away": Unavailable("away"), "broken": RuntimeError("broken")}
source: dict[str, Any] = {"ms": 0, "fails": "", "version": 1}
calls: list[str] = []


@router.get("/direct/{key}")
async def direct(key: str) -> Thing:
    await asyncio.sleep(source["ms"] / 1000)
    return Thing(key=key, version=source["version"])


@router.get("/get/{policy}/{key}")
async def get(request: Request, policy: str, key: str, principal: str | None = None, tag: str = "all") -> Any:
    async def load() -> Thing:
        calls.append(key)
        found = POLICIES[policy].kind(key=key, version=source["version"], owner=principal)
        await asyncio.sleep(source["ms"] / 1000)
        if source["fails"]:
            raise FAILURES[source["fails"]]
        return found

    cache = state_of(request.app).cache
    return await cache.get_or_load(POLICIES[policy], key, load, tags=[tag], principal=principal)


@router.post("/source")
async def behave(told: dict[str, Any]) -> dict[str, Any]:
    source.update(told)
    return source


@router.post("/forget/{tag}")
async def forget(request: Request, tag: str) -> None:
    await state_of(request.app).cache.invalidate(tag)


@router.get("/calls/{key}")
async def called(key: str) -> int:
    return calls.count(key)
'''


def new(name: str) -> str:
    """A key or tag that nobody has used yet."""
    return f"{name}-{secrets.token_hex(4)}"


@dataclass(frozen=True)
class Lab:
    """A service with the laboratory, and the server that it caches on."""

    service: Service
    server: Server | None = None

    def get(self, key: str, policy: str = "plain", **query: str) -> Any:
        """A value; anything but 200 is an error."""
        answer = self.service.client.get(f"/lab/get/{policy}/{key}", params=query)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def source(self, **told: Any) -> None:
        """Tell the source how to behave: `ms`, `fails`, `version`."""
        assert self.service.client.post("/lab/source", json=told).status_code == 200

    def forget(self, tag: str = "all") -> None:
        """Invalidate."""
        assert self.service.client.post(f"/lab/forget/{tag}").status_code == 200

    def calls(self, key: str) -> int:
        """How often the source was asked for it."""
        return int(self.service.client.get(f"/lab/calls/{key}").text)

    def hits(self, key: str) -> bool:
        """Whether the cache keeps things at the moment."""
        self.get(key)
        before = self.calls(key)
        self.get(key)
        return self.calls(key) == before

    def wait(self, true: Callable[[], bool], seconds: float = 10.0) -> None:
        """Return once `true()`."""
        deadline = time.monotonic() + seconds
        while not true():
            assert time.monotonic() < deadline, f"not within {seconds:g} s\n{self.service.log[-3000:]}"
            time.sleep(0.05)

    def lines(self, text: str) -> int:
        """How many lines of the log have a text."""
        return sum(text in line for line in self.service.log.splitlines())

    def rush(self, paths: list[str], *ports: int) -> Counter[int]:
        """Ask for all of them at once, each on a connection of its own: how often which status came."""

        async def ask(port: int, path: str) -> int:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
            answer = await reader.read()
            writer.close()
            return int(answer[9:12])

        async def all_of_them() -> list[int]:
            to = ports or (self.service.port,)
            return await asyncio.gather(*(ask(port, path) for path in paths for port in to))

        return Counter(asyncio.run(all_of_them()))


@pytest.fixture(scope="session")
def on_redis(project: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The default project with the laboratory."""
    return project.variant(tmp_path_factory.mktemp("redis") / "service", Feature("lab", FEATURE), *QUICK)


@pytest.fixture(scope="session")
def on_memcached(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The laboratory in a project for Memcached."""
    made = Project(render(template, tmp_path_factory.mktemp("memcached") / "service", cache="memcached")).install()
    for change in (Feature("lab", FEATURE), *QUICK):
        change.apply(made.root)
    return made


@contextmanager
def lab(
    project: Project, folder: Path, server: Server | None = None, *changes: Change, env: Mapping[str, str] | None = None
) -> Iterator[Lab]:
    """Run it, perhaps changed, until its server is in use."""
    made = project.variant(folder / "changed", *changes) if changes else project
    url = {"CACHE_URL": server.url()} if server else {}
    settings = {"ENVIRONMENT": "staging", "LOG_FORMAT": "json", "SHUTDOWN_DRAIN_SECONDS": "0", **url}
    with made.serve(
        folder / "run", settings | {"DATABASE_URL": f"sqlite:///{folder}/x.db"} | dict(env or {})
    ) as served:
        found = Lab(served, server)
        if server:
            found.wait(lambda: found.hits("warm"))
        yield found


@pytest.fixture(scope="session")
def stored(on_redis: Project, postgres: Postgres) -> dict[str, str]:
    """A database of PostgreSQL for the worker's labs on Redis."""
    return migrated(on_redis, postgres.create_database())


@pytest.fixture(scope="session")
def pair(on_redis: Project, stored: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Lab]]:
    """The worker's two instances on one Redis and one PostgreSQL. Tests leave all well."""
    folder = tmp_path_factory.mktemp("pair")
    with (
        Redis() as server,
        lab(on_redis, folder / "one", server, env=stored) as one,
        lab(on_redis, folder / "two", server, env=stored) as two,
    ):
        yield [one, two]


@pytest.fixture(scope="session")
def alone(on_memcached: Project, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """The worker's instance on Memcached. Tests leave both well."""
    with Memcached() as server, lab(on_memcached, tmp_path_factory.mktemp("alone"), server) as made:
        yield made


@pytest.fixture(params=["redis", "memcached"])
def running(request: pytest.FixtureRequest) -> Lab:
    """An instance on a server of each kind in turn."""
    found: Lab = request.getfixturevalue("pair")[0] if request.param == "redis" else request.getfixturevalue("alone")
    return found


def turns_red(proof: Callable[[], object], *sick: Lab) -> None:
    """The proof fails, and not because the sabotage is broken itself."""
    with pytest.raises(AssertionError):
        proof()
    for made in sick:
        assert not (broken := BROKEN.search(made.service.log)), made.service.log[broken.start() - 500 :][:1500]
