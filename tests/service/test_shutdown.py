"""A rolling restart under load loses nothing for a client that never retries and follows `/readyz`."""

import itertools
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tests.plant import Feature
from tests.projects import Project
from tests.proof import count
from tests.servers.process import Process, free_port
from tests.service.conftest import migrated

pytestmark = pytest.mark.servers
DRAIN = 1.0  # seconds
BUDGET = DRAIN + 10  # seconds from SIGTERM to the exit
SLOW = 0.7  # seconds that a slow request takes
LOAD = Feature(
    "load",
    '''"""Routes for the load."""

import asyncio

from fastapi import APIRouter, WebSocket

router = APIRouter(prefix="/load")


@router.get("/slow")
async def slow() -> dict[str, str]:
    await asyncio.sleep(0.7)
    return {"slow": "done"}


@router.websocket("/echo")
async def echo(socket: WebSocket) -> None:
    await socket.accept()
    while True:
        await socket.send_text(await socket.receive_text())
''',
)


class Instance:
    """One of two processes of the service, started and stopped while the other serves."""

    def __init__(self, project: Project, command: list[str], folder: Path, env: dict[str, str]) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.ready = False
        self._start: Callable[[], Process] = lambda: Process(
            [part.replace("PORT", str(self.port)) for part in command],
            log=folder / f"{self.port}.log",
            cwd=project.root,
            env=project.env({**env, "PORT": str(self.port)}),
        )
        self.process = self._start()

    def look(self) -> None:
        """Ask as a balancer does."""
        try:
            self.ready = httpx.get(f"{self.url}/readyz", timeout=2, trust_env=False).status_code == 200
        except httpx.TransportError:
            self.ready = False

    def wait_ready(self) -> None:
        self.process.wait_until(lambda: self.ready, 30)

    def roll(self) -> tuple[int, float]:
        """Stop by SIGTERM and start again: exit code, and seconds that the exit took."""
        begun = time.monotonic()
        self.process.send(signal.SIGTERM)
        code, took = self.process.wait(), time.monotonic() - begun
        self.process = self._start()
        self.wait_ready()
        return code, took


@contextmanager
def load(instances: list[Instance]) -> Iterator[Counter[str]]:
    """GET, POST and slow requests on kept connections, without retries, to instances that are ready: what came back."""
    found: Counter[str] = Counter()
    over = threading.Event()

    def follow() -> None:
        while not over.wait(0.05):
            for instance in instances:
                instance.look()

    def drive(send: Callable[[httpx.Client, str], httpx.Response]) -> None:
        turn = itertools.cycle(instances)
        with httpx.Client(timeout=10, trust_env=False) as client:
            while not over.is_set():
                instance = next(turn)
                if not instance.ready:
                    time.sleep(0.001)  # where plain uvicorn goes and the other is not back, nobody is
                    continue
                try:
                    answer = send(client, instance.url)
                    found["answered" if answer.is_success else f"{answer.status_code}"] += 1
                except httpx.TransportError as error:
                    found[type(error).__name__] += 1

    work: list[Callable[[httpx.Client, str], httpx.Response]] = [
        lambda client, url: client.get(f"{url}/v1/items?limit=1"),
        lambda client, url: client.get(f"{url}/version"),
        lambda client, url: client.post(f"{url}/v1/items", json={"name": "load"}),
        lambda client, url: client.get(f"{url}/load/slow"),
        lambda client, url: client.get(f"{url}/load/slow"),
    ]
    threads = [threading.Thread(target=follow, daemon=True)]
    threads += [threading.Thread(target=drive, args=(send,), daemon=True) for send in work]
    threads[0].start()
    for instance in instances:
        instance.wait_ready()
    for thread in threads[1:]:
        thread.start()
    try:
        yield found
    finally:
        over.set()
        for thread in threads:
            thread.join()


def rolling(project: Project, folder: Path, command: list[str], rolls: int) -> Counter[str]:
    """Restart two instances in turn under load, a WebSocket open to each that goes: what the clients got."""
    env = migrated(project, f"sqlite:///{folder}/load.db")
    env |= {"SHUTDOWN_DRAIN_SECONDS": f"{DRAIN}", "LOG_LEVEL": "WARNING"}
    instances = [Instance(project, command, folder, env) for _ in range(2)]
    try:
        with load(instances) as found:
            for roll in range(rolls):
                instance = instances[roll % 2]
                with connect(f"ws://127.0.0.1:{instance.port}/load/echo") as socket:
                    socket.send("before")
                    assert socket.recv(timeout=5) == "before"
                    code, took = instance.roll()
                    with pytest.raises(ConnectionClosed) as closed:
                        socket.recv(timeout=5)
                found["exit 0" if code == 0 else f"exit {code}"] += 1
                found["in time" if took < BUDGET else "late"] += 1
                found[f"socket {closed.value.rcvd.code if closed.value.rcvd else 'lost'}"] += 1
                time.sleep(0.3)
        return found
    finally:
        for instance in instances:
            instance.process.stop()


@pytest.fixture(scope="module")
def loaded(project: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The service with routes for the load."""
    return project.variant(tmp_path_factory.mktemp("loaded") / "service", LOAD)


def test_a_rolling_restart_loses_nothing(loaded: Project, tmp_path: Path) -> None:
    rolls = count(2, 12)
    found = rolling(loaded, tmp_path, list(loaded.command("serve")), rolls)
    assert found.pop("answered") > 100 * rolls
    assert found == {"exit 0": rolls, "in time": rolls, "socket 1012": rolls}


@pytest.mark.sabotage
def test_plain_uvicorn_loses_requests(loaded: Project, tmp_path: Path) -> None:
    """The negative control: the same load, without a drain between the signal and the exit."""
    uvicorn = [str(loaded.venv / "bin" / "uvicorn"), "my_service.main:app", "--port=PORT", "--no-access-log"]
    found = rolling(loaded, tmp_path, uvicorn, 2)
    assert found["answered"] > 20
    assert sum(found[kind] for kind in ("ConnectError", "RemoteProtocolError", "ReadError", "503")) > 0
