"""Runs the emitted client of Vault in the service's own interpreter, with a clock that goes as the test says.

The server's clock is the real one: of what it lends for an hour, the whole hour is left whenever the client asks.
"""

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any

from tests.projects import Project
from tests.secrets.conftest import Side

PROGRAM = """
import json, os, sys, time
real = time.time
time.time = lambda: real() + float(os.environ.get('SKEW', '0'))  # the machine's clock is wrong by so much
from my_service.platform.secrets import vault
from my_service.platform.settings import SourceUnavailable, ConfigurationError

now = 1000.0
backend = vault.open_backend(vault.Settings(), lambda: now)
for line in sys.stdin:
    now += float(line)
    try:
        snapshot = backend.read()
        said = {"values": dict(snapshot.values), "look": snapshot.refresh_seconds, "error": ""}
    except (SourceUnavailable, ConfigurationError) as error:
        said = {"values": {}, "look": 0, "error": f"{type(error).__name__}: {error}"}
    said["leases"] = {name: [lease.until - now, lease.seconds] for name, lease in backend.leases.items()}
    print(json.dumps(said), flush=True)
"""


@dataclass(frozen=True)
class Said:
    """What one read gave: `error` is empty, or its kind and text; of each lease what is left and what it was."""

    values: dict[str, str]
    look: float
    error: str
    leases: dict[str, list[float]]


@dataclass(frozen=True)
class Client:
    """The client."""

    side: Side
    write: IO[str]
    lines: IO[str]

    def read(self, after: float = 0) -> Said:
        """Read, so many seconds later by its own clock."""
        self.write.write(f"{after}\n")
        self.write.flush()
        return Said(**json.loads(self.lines.readline()))

    def asked(self, path: str) -> int:
        """How often the server was asked for this."""
        return self.side.vault.asked(path)


@contextmanager
def client(project: Project, side: Side, **env: str) -> Iterator[Client]:
    """Start it; it asks nothing before the first `read`."""
    command = [str(project.venv / "bin/python"), "-c", PROGRAM]
    given: dict[str, Any] = {"cwd": project.root, "env": project.env({**side.env, **env}), "text": True}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, **given) as process:
        assert process.stdin
        assert process.stdout
        try:
            yield Client(side, process.stdin, process.stdout)
        finally:
            process.stdin.close()
