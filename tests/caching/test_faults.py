"""Cache servers that are refused, hung, killed, restarted, full or slow: every value comes, and all mends itself."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path

import pytest

from tests.caching.conftest import CACHE, Lab, Server, lab
from tests.projects import Edit, Project
from tests.servers.memcached import Memcached
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


class Late:
    """A way to a server on which answers take as long as one says."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.delay = 0.0
        self.url = ""

    async def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answers, questions = await asyncio.open_connection("127.0.0.1", self.server.port)
        await asyncio.gather(self.hand_on(reader, questions, False), self.hand_on(answers, writer, True))

    async def hand_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, late: bool) -> None:
        with suppress(OSError):
            while chunk := await reader.read(65_536):
                await asyncio.sleep(self.delay * late)
                writer.write(chunk)
        writer.close()


@contextmanager
def late(server: Server) -> Iterator[Late]:
    """Open the way, on a thread of its own."""
    way, loop = Late(server), asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    listening = asyncio.run_coroutine_threadsafe(asyncio.start_server(way.take, "127.0.0.1", 0), loop).result()
    way.url = server.url().replace(str(server.port), str(listening.sockets[0].getsockname()[1]))
    try:
        yield way
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()


Fault = Callable[[Server], AbstractContextManager[None]]
FAULTS: list[Fault] = [killed, hung, full]


def survives(made: Lab, fault: Fault) -> None:
    """Values come, the log says it once, and the cache is used again when the fault is over."""
    assert made.server
    name = f"{fault.__name__}-{time.monotonic_ns()}"
    away, back, others = made.lines("cache is away"), made.lines("cache is back"), quiet(made)
    with fault(made.server):
        for number in range(REQUESTS):
            assert made.get(f"{name}-{number}")["key"] == f"{name}-{number}"
        made.forget()
        made.wait(lambda: made.lines("cache is away") == away + 1)
        assert made.calls(f"{name}-0") == 1
        for number in range(REQUESTS):
            assert made.get(f"{name}-{number}")["key"] == f"{name}-{number}"
        assert made.calls(f"{name}-0") == 2  # it is left alone
    made.wait(lambda: made.lines("cache is back") == back + 1)
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


@pytest.mark.parametrize(
    ("fault", "edit"),
    [
        (killed, Edit(f"{CACHE}/breaker.py", "failures == CONFIRM", "False")),
        (full, Edit(f"{CACHE}/readthrough.py", "await self.backend.set({key: token}, 10)", "return")),
    ],
    ids=["says nothing", "a probe that does not write"],
)
def test_a_breaker_that_does_not_work_is_noticed(
    projects: dict[str, Project], tmp_path: Path, fault: Fault, edit: Edit
) -> None:
    with Redis() as server, lab(projects["redis"], tmp_path, server, edit) as made:
        made.wait(lambda: made.hits("warm"))
        with pytest.raises(AssertionError):
            survives(made, fault)


@pytest.mark.parametrize(
    ("kind", "edits"),
    [(Redis, []), (Memcached, []), (Redis, [Edit(f"{CACHE}/breaker.py", "CALL = 0.25", "CALL = 2.5")])],
    ids=["redis", "memcached", "too patient"],
)
def test_a_slow_server_is_left_alone_until_it_is_quick_again(
    projects: dict[str, Project], tmp_path: Path, kind: type[Server], edits: list[Edit]
) -> None:
    with kind() as server, late(server) as way:
        env = {"CACHE_URL": way.url}
        with lab(projects[kind.scheme], tmp_path, server, *edits, env=env) as made:
            made.wait(lambda: made.hits("warm"))
            way.delay = 0.4
            assert made.rush([f"/lab/get/plain/slow-{number}" for number in range(30)]) == {200: 30}
            with pytest.raises(AssertionError) if edits else nullcontext():
                made.wait(lambda: made.lines("cache is away") == 1, 5)
            way.delay = 0.0
            made.wait(lambda: made.hits("quick"))


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


def test_an_invalidation_that_the_server_missed_is_made_up_for(running: Lab) -> None:
    sees_the_change(running)


def test_an_invalidation_that_is_dropped_is_noticed(projects: dict[str, Project], tmp_path: Path) -> None:
    edit = Edit(f"{CACHE}/readthrough.py", "await self._renew(dict(self.held))", "self.held.clear()")
    with Redis() as server, lab(projects["redis"], tmp_path, server, edit) as made:
        made.wait(lambda: made.hits("warm"))
        with pytest.raises(AssertionError):
            sees_the_change(made)
