"""SIGHUP drains and exits like SIGTERM: settings are read at the start only, so there is nothing to reload.

systemd sends SIGHUP after SIGTERM with `SendSIGHUP=` (systemd.kill(5)), and a terminal that closes may send it twice.
"""

import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.plant import Feature
from tests.projects import Project
from tests.sabotage import Body, Sabotage
from tests.servers.process import Process, ServerError, free_port

pytestmark = [
    pytest.mark.servers,
    pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="this system has no SIGHUP"),
]
SLOW = Feature(
    "slow",
    '''"""A route that takes its time."""

import asyncio
from pathlib import Path

from fastapi import APIRouter

router = APIRouter()


@router.get("/slow")
async def slow() -> dict[str, str]:
    Path("begun").touch()
    await asyncio.sleep(1)
    return {"slow": "done"}
''',
)


@contextmanager
def serving(project: Project, folder: Path, *prefix: str) -> Iterator[tuple[Process, str, Path]]:
    """The service, its address, and its log."""
    port, log = free_port(), folder / "log"
    env = project.env({"PORT": str(port), "ENVIRONMENT": "staging", "SHUTDOWN_DRAIN_SECONDS": "0"})
    process = Process([*prefix, *project.command("serve")], log=log, cwd=project.root, env=env)
    url = f"http://127.0.0.1:{port}"

    def lives() -> bool:
        try:
            return httpx.get(f"{url}/livez", timeout=5, trust_env=False).status_code == 200
        except httpx.TransportError:
            return False

    try:
        process.wait_until(lives, 60)
        yield process, url, log
    finally:
        process.stop()


def completes_a_request(project: Project, folder: Path, *signals: signal.Signals) -> None:
    """A request in flight is answered after the signals, and then the process ends with 0."""
    with serving(project, folder) as (process, url, log), ThreadPoolExecutor(1) as pool:
        asked = pool.submit(httpx.get, f"{url}/slow", timeout=20, trust_env=False)
        process.wait_until((project.root / "begun").exists, 20)
        for each in signals:
            process.send(each)
            time.sleep(0.2)  # the second signal must not be merged with the first
        assert asked.result().json() == {"slow": "done"}
        assert process.wait(40) == 0
        assert f'"signal":"{signals[0].name}"' in log.read_text()


@pytest.fixture
def slow(bare_project: Project, tmp_path: Path) -> Project:
    return bare_project.variant(tmp_path / "slow", SLOW)


@pytest.mark.parametrize(
    "signals",
    [[signal.SIGHUP, signal.SIGHUP], [signal.SIGTERM, signal.SIGHUP]],
    ids=["a terminal closes", "systemd stops"],
)
def test_a_hangup_drains_and_exits_with_0(slow: Project, tmp_path: Path, signals: list[signal.Signals]) -> None:
    completes_a_request(slow, tmp_path, *signals)


@pytest.mark.wide
def test_nohup_still_ignores_a_hangup(slow: Project, tmp_path: Path) -> None:
    """POSIX: nohup sets SIGHUP to be ignored, and the command inherits that."""
    with serving(slow, tmp_path, "nohup") as (process, url, _):
        process.send(signal.SIGHUP)
        time.sleep(0.5)  # a signal that is ignored leaves nothing to wait for
        assert httpx.get(f"{url}/slow", timeout=20, trust_env=False).status_code == 200
        assert process.running


@pytest.mark.sabotage
@pytest.mark.parametrize(
    ("sabotage", "signals"),
    [
        (Body("server:_on_hangup", "pass"), [signal.SIGHUP]),
        (
            Body("server:DrainServer.handle_exit", "if self.state.draining:\n    os._exit(1)\noriginal(sig, frame)"),
            [signal.SIGTERM, signal.SIGHUP],
        ),
    ],
    ids=["not handled", "as a second signal"],
)
def test_a_hangup_that_cuts_requests_is_noticed(
    bare_project: Project, tmp_path: Path, sabotage: Sabotage, signals: list[signal.Signals]
) -> None:
    sick = bare_project.variant(tmp_path / "sick", SLOW, sabotage)
    with pytest.raises((AssertionError, ServerError, httpx.TransportError)):
        completes_a_request(sick, tmp_path, *signals)
