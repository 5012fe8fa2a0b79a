"""The service with a laboratory: a source that can be slow or fail, behind each kind of policy, on real servers."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.projects import Edit, Project, Service, render
from tests.servers.memcached import Memcached
from tests.servers.redis import Redis

Server = Redis | Memcached
CACHE = "src/my_service/platform/cache"
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


POLICIES = {
    "brief": CachePolicy("brief", Thing, seconds=0.3, stale_seconds=60),
    "dear": CachePolicy("dear", Thing, seconds=60, lock=True),
    "mine": CachePolicy("mine", Thing, seconds=60, private=True),
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
async def get(request: Request, policy: str, key: str, principal: str | None = None, tag: str = "all") -> Thing | None:
    async def load() -> Thing:
        calls.append(key)
        found = Thing(key=key, version=source["version"], owner=principal)
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


def with_laboratory(project: Project) -> Project:
    """Add the feature."""
    feature = project.root / "src/my_service/features/lab"
    feature.mkdir()
    (feature / "__init__.py").write_text("")
    (feature / "routes.py").write_text(FEATURE)
    return project


@pytest.fixture(scope="session")
def projects(template: Path, project: Project, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Project]:
    """A service with the laboratory for each kind of server."""
    memcached = render(template, tmp_path_factory.mktemp("memcached") / "service", cache="memcached")
    return {
        "redis": with_laboratory(project.variant(tmp_path_factory.mktemp("redis") / "service")),
        "memcached": with_laboratory(Project(memcached).install()),
    }


@contextmanager
def lab(
    project: Project, folder: Path, server: Server | None = None, *edits: Edit, env: Mapping[str, str] | None = None
) -> Iterator[Lab]:
    """Run it, perhaps changed."""
    made = project.variant(folder / "sick", *edits) if edits else project
    url = {"CACHE_URL": server.url()} if server else {}
    settings = {"ENVIRONMENT": "staging", "LOG_FORMAT": "json", "SHUTDOWN_DRAIN_SECONDS": "0", **url}
    with made.serve(
        folder / "run", settings | {"DATABASE_URL": f"sqlite:///{folder}/x.db"} | dict(env or {})
    ) as served:
        yield Lab(served, server)


KINDS: dict[str, type[Server]] = {"redis": Redis, "memcached": Memcached}


@pytest.fixture(scope="module", params=list(KINDS))
def running(
    request: pytest.FixtureRequest, projects: dict[str, Project], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Lab]:
    """A service on a server of each kind in turn, shared by the tests of a module: they leave both well."""
    kind: type[Server] = KINDS[request.param]
    with kind() as server, lab(projects[request.param], tmp_path_factory.mktemp(request.param), server) as made:
        made.wait(lambda: made.hits("warm"))
        yield made
