"""A Sentry that is away, silent, slow or unwilling: requests do not notice, and the exit keeps its budget."""

import gzip
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from bench import measure
from bench.load import load
from tests.errors.conftest import reporting
from tests.projects import Project, Service
from tests.proof import FULL, count
from tests.sabotage import Body, Sabotage, Value
from tests.servers.process import free_port

pytestmark = pytest.mark.servers
FLUSH = 2.0  # seconds to send what waits
MARGIN = 3.0  # seconds for a process to end on a busy machine


class Far:
    """Where reports go: what came there."""

    def __init__(self, port: int) -> None:
        self.dsn = f"http://public@127.0.0.1:{port}/1"
        self.over = threading.Event()
        self.bodies: list[bytes] = []


@contextmanager
def answering(status: int, delay: float = 0.0) -> Iterator[Far]:
    """A server that answers every report this way, so late."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = gzip.decompress(self.rfile.read(int(self.headers["Content-Length"])))
            far.over.wait(delay)
            far.bodies.append(body)
            self.send_response(status)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, format: str, *arguments: object) -> None: ...

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: object, client_address: object) -> None: ...  # the service went away

    with Server(("127.0.0.1", 0), Handler) as server:
        far = Far(server.server_address[1])
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield far
        finally:
            far.over.set()
            server.shutdown()
            thread.join()


@contextmanager
def refused() -> Iterator[Far]:
    """Nobody listens."""
    yield Far(free_port())


def hung() -> AbstractContextManager[Far]:
    """Takes everything and never answers."""
    return answering(200, delay=600)


def slow() -> AbstractContextManager[Far]:
    return answering(200, delay=1.0)


def limited() -> AbstractContextManager[Far]:
    return answering(429)


def failing() -> AbstractContextManager[Far]:
    return answering(500)


Fault = Callable[[], AbstractContextManager[Far]]
FAULTS: list[Fault] = [refused, hung, slow, limited, failing]


def storm(service: Service, kinds: int) -> None:
    """Many errors of many kinds, and requests between them that have none."""
    letters = [f"{a}{b}" for a in "abcdefghijklmnop" for b in "abcdefghijklmnop"]
    for kind in letters[:kinds]:
        assert service.client.get("/fault/thread/x").status_code == 500
        for _ in range(5):
            assert service.client.get(f"/fault/kind/{kind}").status_code == 200
        assert service.client.get("/fault/fine").status_code == 200


def leaves(service: Service) -> tuple[int, float]:
    """SIGTERM: the exit code and the seconds."""
    begun = time.monotonic()
    service.process.send(signal.SIGTERM)
    return service.process.wait(), time.monotonic() - begun


@pytest.mark.timing
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_no_request_fails_and_the_exit_keeps_its_budget(faulty: Project, tmp_path: Path, fault: Fault) -> None:
    with fault() as far, reporting(faulty, tmp_path, far.dsn) as service:
        storm(service, count(10, 40))
        code, seconds = leaves(service)
    assert code == 0
    assert seconds < FLUSH + MARGIN
    assert "Retrying" not in service.log


@pytest.mark.sabotage
@pytest.mark.timing
def test_a_flush_without_a_deadline_would_hold_the_exit(faulty: Project, tmp_path: Path) -> None:
    patient = [
        Value("errors:FLUSH_SECONDS", "9"),
        Value("errors:SEND_SECONDS", "9"),
        Value("platform.__init__:FLUSH_SECONDS", "9"),
    ]
    with hung() as far, reporting(faulty, tmp_path, far.dsn, *patient) as service:
        storm(service, 2)
        assert leaves(service)[1] > FLUSH + MARGIN


def told(service: Service, reason: str) -> bool:
    return any("error reports lost" in line and f'"{reason}"' in line for line in service.log.splitlines())


LOSSES = [(refused, "network", 3), (limited, "status_429", 3), (hung, "full_queue", 30)]
LOSSES += [(failing, "status_500", 3)] * FULL


@pytest.mark.parametrize(("fault", "reason", "kinds"), LOSSES)
def test_what_is_lost_is_told_and_what_waits_is_bounded(
    faulty: Project, tmp_path: Path, fault: Fault, reason: str, kinds: int
) -> None:
    with fault() as far, reporting(faulty, tmp_path, far.dsn) as service:
        storm(service, kinds)
        assert leaves(service)[0] == 0
    assert told(service, reason)


@pytest.mark.sabotage
def test_a_loss_of_which_nobody_speaks_is_noticed(faulty: Project, tmp_path: Path) -> None:
    with refused() as far, reporting(faulty, tmp_path, far.dsn, Body("errors:Reports.log_unsent", "pass")) as service:
        storm(service, 3)
        assert leaves(service)[0] == 0
    assert not told(service, "network")


def flushed(project: Project, folder: Path, *sabotages: Sabotage) -> int:
    """How many of two reports to a slow server arrive although the process is told to go at once."""
    with answering(200, delay=0.5) as far, reporting(project, folder, far.dsn, *sabotages) as service:
        assert service.client.get("/fault/kind/first").status_code == 200
        assert service.client.get("/fault/thread/x").status_code == 500
        assert leaves(service)[0] == 0
        return sum(b"failed for first" in body or b"thread x" in body for body in far.bodies)


def test_what_waits_is_sent_before_the_exit(faulty: Project, tmp_path: Path) -> None:
    assert flushed(faulty, tmp_path) == 2


@pytest.mark.sabotage
def test_no_flush_would_lose_what_waits(faulty: Project, tmp_path: Path) -> None:
    assert flushed(faulty, tmp_path, Body("errors:Reports.close", "pass")) < 2


def cpu(service: Service, seconds: float) -> float:
    """CPU seconds of the service for one request without an error."""
    before = measure.cpu_seconds(service.process.pid)
    seen = load("127.0.0.1", service.port, "/fault/fine", connections=4, seconds=seconds)
    assert seen.errors == 0
    return (measure.cpu_seconds(service.process.pid) - before) / seen.requests


MAX_RATIO = 1.15


@pytest.mark.timing
def test_reporting_costs_a_request_without_an_error_little(faulty: Project, tmp_path: Path) -> None:
    """Interleaved, so that all have the same neighbours: no Sentry, one that is away, one that is silent."""
    folders = {name: tmp_path / name for name in ("off", "refused", "hung")}
    for folder in folders.values():
        folder.mkdir()
    with (
        refused() as nobody,
        hung() as silent,
        reporting(faulty, folders["off"], "off") as off,
        reporting(faulty, folders["refused"], nobody.dsn) as without,
        reporting(faulty, folders["hung"], silent.dsn) as waiting,
    ):
        sides = {"off": off, "refused": without, "hung": waiting}
        for service in sides.values():
            for name in "abcdefgh":
                service.client.get(f"/fault/kind/{name}")  # reports are under way, or wait
            cpu(service, 0.5)
        least, ratios = dict.fromkeys(sides, 1.0), {"refused": 9.0, "hung": 9.0}
        for turn in range(count(21, 45)):
            # the least of each: what disturbs a round only adds to it, so more rounds settle a doubt
            least = {name: min(least[name], cpu(service, 1.0)) for name, service in sides.items()}
            ratios = {name: least[name] / least["off"] for name in ratios}
            if turn >= 6 and max(ratios.values()) < MAX_RATIO:
                break
    print("\nof the CPU per request without reporting:", {name: f"{ratio:.3f}" for name, ratio in ratios.items()})
    assert max(ratios.values()) < MAX_RATIO
