"""Two workers, or a fork after the import: each process is an instance of its own, and loses nothing to the other."""

import shutil
import time
from collections import Counter
from pathlib import Path

import httpx
import pytest

from tests.projects import Project
from tests.proof import FULL
from tests.servers.otlp import Collector
from tests.servers.process import Process, free_port
from tests.telemetry.conftest import DATABASE, QUICK

pytestmark = pytest.mark.servers
REQUESTS = 40
DURATION = "http.server.request.duration"
# What a server that loads before it forks does, gunicorn with --preload among them.
FORK = """
import os, socket, sys
import uvicorn
from my_service import main
app = main.app()

listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
listener.set_inheritable(True)
children = []
for _ in range(2):
    if not (child := os.fork()):
        uvicorn.Server(uvicorn.Config(app, log_config=None)).run(sockets=[listener])
        os._exit(0)
    children.append(child)
for child in children:
    os.waitpid(child, 0)
"""


# What starts a process does not ask who makes its spans: each is tried once, and with PROOF=full both with both.
PAIRS = [("contrib", "workers"), ("native", "fork"), *[("contrib", "fork"), ("native", "workers")] * FULL]


@pytest.mark.parametrize(("which", "how"), PAIRS)
def test_each_process_is_an_instance_of_its_own(
    kinds: dict[str, Project], tmp_path: Path, collector: Collector, which: str, how: str
) -> None:
    kind, port = kinds[which], free_port()
    database = shutil.copy(kind.root / DATABASE, tmp_path / DATABASE)
    command = {
        "workers": [str(kind.venv / "bin/uvicorn"), "my_service.main:app", f"--port={port}", "--workers=2"],
        "fork": [str(kind.venv / "bin/python"), "-c", FORK, str(port)],
    }[how]
    where = {"DATABASE_URL": f"sqlite:///{database}", "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url}
    process = Process(command, log=tmp_path / "log", cwd=kind.root, env=kind.env(QUICK | where))
    sent = 0

    def arrived() -> bool:
        return len(collector.server_spans()) >= sent

    def spans() -> Counter[str]:
        return Counter(span.resource["service.instance.id"] for span in collector.server_spans())

    def counted() -> Counter[str]:
        return Counter({p.resource["service.instance.id"]: int(p.value) for p in collector.named(DURATION)})

    def up() -> bool:
        try:
            return httpx.get(f"http://127.0.0.1:{port}/livez", trust_env=False).is_success
        except httpx.TransportError:
            return False

    try:
        process.wait_until(up, 30)
        deadline = time.monotonic() + 30
        while len(spans()) < 2 and time.monotonic() < deadline:  # until the kernel has given some to each
            for _ in range(REQUESTS):
                assert httpx.get(f"http://127.0.0.1:{port}/watch/sync", trust_env=False).is_success
            sent += REQUESTS
            collector.wait_until(arrived)
        collector.wait_until(lambda: sum(counted().values()) >= sent)
        assert len(spans()) == 2
        assert counted() == spans()
        assert sum(spans().values()) == sent
        assert len({span.span_id for span in collector.server_spans()}) == sent
    finally:
        process.stop()
