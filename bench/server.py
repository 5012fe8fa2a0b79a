"""A server process under measurement: what its start, its memory and its requests cost."""

import http.client
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench import measure
from bench.harness import BenchError
from bench.load import load
from tests.servers.process import Process

HOST = "127.0.0.1"
START_SECONDS = 60.0
_POLL_SECONDS = 0.01


@dataclass(frozen=True)
class Server:
    """One that answered 200 for the first time. `start_cpu` is what it had used by then."""

    name: str
    pid: int
    port: int
    start_cpu: float

    @property
    def resident_bytes(self) -> int:
        return measure.resident_bytes(self.pid)

    def cpu_per_request(
        self, path: str, seconds: float, *, headers: Mapping[str, str] | None = None, status: int = 200
    ) -> float:
        """CPU seconds of the server for one request under load.

        Raises:
            BenchError: An answer had another status, or did not come.
        """
        before = measure.cpu_seconds(self.pid)
        seen = load(HOST, self.port, path, headers=headers, seconds=seconds, status=status)
        spent = measure.cpu_seconds(self.pid) - before
        if seen.errors or not seen.requests:
            answered = f"{seen.errors} of {seen.errors + seen.requests} requests"
            raise BenchError(f"{self.name}: {answered} were not answered with {status}")
        return spent / seen.requests


def status(port: int, path: str) -> int:
    """The status of one answer; 0 where none came."""
    connection = http.client.HTTPConnection(HOST, port, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    except OSError:
        return 0
    finally:
        connection.close()


@contextmanager
def serving(
    command: Sequence[str | Path],
    port: int,
    path: str,
    *,
    cwd: Path,
    env: Mapping[str, str],
    log: Path,
) -> Iterator[Server]:
    """Start a server, wait until `path` answers 200, and stop it in the end.

    Raises:
        BenchError: It did not come up.
    """
    process = Process(command, cwd=cwd, env=env, log=log)
    try:
        deadline = time.monotonic() + START_SECONDS
        while status(port, path) != 200:
            if not process.running or time.monotonic() > deadline:
                lines = log.read_text(errors="replace").strip().splitlines() or ["nothing said"]
                raise BenchError(f"{process.name} does not answer {path} with 200: {lines[-1]}")
            time.sleep(_POLL_SECONDS)
        yield Server(process.name, process.pid, port, measure.cpu_seconds(process.pid))
    finally:
        process.stop()
