"""Streams end by themselves at a drain: the example of the emitted docs, as printed."""

import os
import re
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from tests.projects import ROOT, Edit, Project, Service
from tests.service.conftest import migrated

pytestmark = pytest.mark.servers
DRAIN = 0.5  # seconds
DEADLINE = 10.0  # seconds, at which nothing was cut off yet: the service gives 20
ROUTES = "src/my_service/features/ticks/routes.py"


def printed() -> str:
    """The example of the docs."""
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "template/docs/connections.md").read_text(), re.S)
    return str(code)


@pytest.fixture
def ticking(project: Project, tmp_path: Path) -> Project:
    """The service with the example."""
    made = project.variant(tmp_path / "service")
    file = made.root / ROUTES
    file.parent.mkdir()
    (file.parent / "__init__.py").write_text('"""Ticks."""\n')
    file.write_text(printed())
    return made


@contextmanager
def streaming(project: Project, folder: Path) -> Iterator[tuple[Service, Iterator[str], ClientConnection]]:
    """A service with an open stream and an open socket, both of which have given something."""
    env = migrated(project, f"sqlite:///{folder}/service.db") | {"SHUTDOWN_DRAIN_SECONDS": str(DRAIN)}
    with (
        project.serve(folder / "run", env) as service,
        httpx.stream("GET", f"http://127.0.0.1:{service.port}/v1/ticks", timeout=30, trust_env=False) as response,
        connect(f"ws://127.0.0.1:{service.port}/v1/ticks/socket") as socket,
    ):
        lines = response.iter_lines()
        assert next(lines) == "data: 0"
        socket.send("x")
        assert socket.recv() == "x"
        yield service, lines, socket


def ended(service: Service, lines: Iterator[str], socket: ClientConnection) -> tuple[list[str], int | None, int]:
    """Send SIGTERM: the last lines of the stream, the code of the socket, and how the process exited."""
    os.kill(service.process.pid, signal.SIGTERM)
    with pytest.raises(ConnectionClosed) as closed:
        socket.recv(timeout=30)
    last = [line for line in lines if line][-3:]  # raises where the stream is cut off
    return last, closed.value.rcvd.code if closed.value.rcvd else None, service.process.wait()


def test_a_drain_ends_streams_politely(ticking: Project, tmp_path: Path) -> None:
    with streaming(ticking, tmp_path) as (service, lines, socket):
        began = time.monotonic()
        last, code, exit_code = ended(service, lines, socket)
        took = time.monotonic() - began
    assert last[0] == "event: bye"
    assert (code, exit_code) == (1001, 0)
    assert DRAIN <= took < DEADLINE


@pytest.mark.sabotage
def test_a_stream_that_does_not_listen_is_cut_off(ticking: Project, tmp_path: Path) -> None:
    """The negative control: the example, without its question."""
    deaf = Edit(ROUTES, "while not closing.is_set():", "while True:")
    deaf.apply(ticking.root)
    Edit(ROUTES, "await closing.wait()", "await asyncio.sleep(1)").apply(ticking.root)
    with streaming(ticking, tmp_path) as (service, lines, socket):
        began = time.monotonic()
        with pytest.raises(httpx.TransportError):
            ended(service, lines, socket)
        assert time.monotonic() - began > DEADLINE


def test_the_example_is_clean(ticking: Project) -> None:
    ruff = str(ticking.venv / "bin/ruff")
    assert "already formatted" in ticking.run(ruff, "format", "--no-cache", "--check", ROUTES).stdout
    assert "All checks passed" in ticking.run(ruff, "check", "--no-cache", ROUTES).stdout
    assert "Success" in ticking.run(str(ticking.venv / "bin/mypy"), ROUTES).stdout
