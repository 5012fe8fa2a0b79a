"""Cache servers that are refused, hung, killed, restarted, full or slow: every value comes, and all mends itself."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from tests.caching.conftest import CACHE, Lab, Server, lab
from tests.projects import Edit, Project
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


@contextmanager
def slow(server: Server) -> Iterator[None]:
    """It answers after most of a second, in a moment that is over when the next call comes."""
    over = threading.Event()

    def work() -> None:
        while not over.is_set():
            server.pause()
            time.sleep(0.8)
            server.resume()
            time.sleep(0.001)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


Fault = Callable[[Server], AbstractContextManager[None]]
FAULTS: list[Fault] = [killed, hung, full, slow]


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
        (killed, Edit(f"{CACHE}/breaker.py", "self.recent.count(False) * 2 >= CALLS", "False")),
        (hung, Edit(f"{CACHE}/readthrough.py", "if self.breaker.tripped or not", "if not")),
        (full, Edit(f"{CACHE}/readthrough.py", "        await self.backend.set({key: token}, 10)\n", "")),
        (slow, Edit(f"{CACHE}/breaker.py", "CALL = 0.25", "CALL = 2.5")),
    ],
    ids=["no breaker", "open for nothing", "a probe that does not write", "too patient"],
)
def test_a_breaker_that_does_not_work_is_noticed(
    projects: dict[str, Project], tmp_path: Path, fault: Fault, edit: Edit
) -> None:
    with Redis() as server, lab(projects["redis"], tmp_path, server, edit) as made:
        made.wait(lambda: made.hits("warm"))
        with pytest.raises(AssertionError):
            survives(made, fault)


def sees_the_change(made: Lab) -> None:
    """A value that changes while the server hangs, which keeps the old one."""
    assert made.server
    made.source(version=1)
    assert made.get("changing")["version"] == 1
    assert made.hits("changing")
    with hung(made.server):
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
