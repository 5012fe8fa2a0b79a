"""The process from outside: how it starts, what it writes, how it leaves."""

import json
import signal
import socket
import threading
import time
from pathlib import Path

import httpx
import pytest

from tests.plant import Feature, Revision
from tests.projects import Change, Project
from tests.sabotage import Body, Value
from tests.servers.postgres import Postgres
from tests.servers.process import ServerError, free_port

pytestmark = pytest.mark.servers
SLOW = Feature(
    "slow",
    '''"""A route that takes its time."""

import asyncio

from fastapi import APIRouter

router = APIRouter()


@router.get("/slow")
async def slow() -> str:
    await asyncio.sleep(1.5)
    return "done"
''',
)


def test_a_port_in_use_is_one_clear_line(project: Project) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = project.cli("serve", env={"PORT": str(port)})
    assert done.returncode == 1
    assert done.stderr == (
        f"cannot listen on 127.0.0.1:{port}: Address already in use; set HOST or PORT to a free address\n"
    )


def test_migrate_without_a_database_is_one_clear_line(project: Project) -> None:
    url = f"postgresql://app:hunter2@127.0.0.1:{free_port()}/orders"
    done = project.cli("migrate", env={"DATABASE_URL": url})
    assert done.returncode == 1
    assert done.stderr.startswith("migrate: the database does not respond; check that it is running")
    assert len(done.stderr.splitlines()) == 1
    assert "hunter2" not in done.stderr


def test_a_broken_migration_is_one_clear_line_and_leaves_no_half(
    project: Project, postgres: Postgres, tmp_path: Path
) -> None:
    half = 'op.create_table("half", sa.Column("id", sa.Uuid, primary_key=True))'
    sick = project.variant(
        tmp_path / "sick", Revision(f'{half}\nop.execute("ALTER TABLE nowhere ADD COLUMN x int")', title="broken")
    )
    env = {"DATABASE_URL": postgres.create_database()}
    done = sick.cli("migrate", env=env)
    assert done.returncode == 1
    assert done.stderr.startswith("migrate: 0002_broken.py failed and was rolled back: ProgrammingError: relation")
    assert len(done.stderr.splitlines()) == 1
    Revision(half, title="broken").apply(sick.root)
    assert sick.cli("migrate", env=env).returncode == 0  # `half` was not there
    (sick.root / "migrations/versions/0003_syntax.py").write_text("def upgrade(\n")
    done = sick.cli("migrate", env=env)
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
    assert "0003_syntax.py" in done.stderr


def test_a_fork_says_the_same_as_a_process_of_its_own(project: Project, tmp_path: Path) -> None:
    """What most tests rely on, and how a process of its own starts and ends."""
    asked = [
        (("migrate",), {"DATABASE_URL": f"sqlite:///{tmp_path}/x.db"}),
        (("serve",), {"ENVIRONMENT": "production"}),
        (("serv",), {}),
    ]
    ends = []
    for arguments, env in asked:
        real = project.cli(*arguments, env=env, anew=True)
        for forked in (project.cli(*arguments, env=env), project.quick(*arguments, env=env)):
            assert (forked.returncode, forked.stdout, forked.stderr) == (real.returncode, real.stdout, real.stderr)
        ends.append(real.returncode)
    assert ends == [0, 78, 2]
    with project.serve(tmp_path, anew=True) as service:
        assert service.client.get("/version").status_code == 200
    assert service.process.wait() == 0


def test_an_unknown_command_is_usage(project: Project) -> None:
    done = project.cli("serv")
    assert (done.returncode, "Traceback" in done.stderr) == (2, False)


def drains(project: Project, folder: Path) -> None:
    """SIGTERM: `/readyz` fails, requests are served on, what is in flight ends, exit 0."""
    with project.serve(folder, {"SHUTDOWN_DRAIN_SECONDS": "1", "LOG_FORMAT": "json"}) as service:
        assert service.client.get("/readyz").status_code == 200
        slow: list[httpx.Response] = []
        base = str(service.client.base_url)
        thread = threading.Thread(target=lambda: slow.append(httpx.get(f"{base}/slow", timeout=10)))
        service.process.send(signal.SIGTERM)
        time.sleep(0.3)
        unready = service.client.get("/readyz")
        assert (unready.status_code, unready.json()["status"]) == (503, "draining")
        assert unready.headers["connection"] == "close"
        assert service.client.get("/livez").status_code == 200
        thread.start()  # it is in flight when the drain is over
        assert service.process.wait() == 0
        thread.join()
        assert slow[0].status_code == 200
        events = [json.loads(line)["event"] for line in service.log.splitlines()]
        assert events[-1] == "stopped"
        assert "draining" in events


def test_sigterm_drains_then_exits(bare_project: Project, tmp_path: Path) -> None:
    drains(bare_project.variant(tmp_path / "slow", SLOW), tmp_path / "run")


@pytest.mark.timing
def test_a_second_signal_exits_at_once(project: Project, tmp_path: Path) -> None:
    with project.serve(tmp_path, {"SHUTDOWN_DRAIN_SECONDS": "60"}) as service:
        service.process.send(signal.SIGTERM)
        service.process.wait_until(lambda: "draining" in service.log, 5)
        begun = time.monotonic()
        service.process.send(signal.SIGTERM)
        assert service.process.wait() == 1
        assert time.monotonic() - begun < 5


SIGNAL = Feature(
    "signal_route",
    '''"""A route that is interrupted by SIGTERM while a log line is being written."""

import io
import os
import signal
import sys

import structlog
from fastapi import APIRouter

router = APIRouter(prefix="/signal")


class Interrupted(io.RawIOBase):
    """Standard output, with a signal in the middle of the first write."""

    signalled = False

    def writable(self) -> bool:
        return True

    def write(self, data) -> int:
        if not self.signalled:
            self.signalled = True
            os.kill(os.getpid(), signal.SIGTERM)
        return os.write(1, data)


@router.get("")
async def interrupted() -> dict[str, str]:
    sys.stdout = io.TextIOWrapper(io.BufferedWriter(Interrupted()))
    structlog.get_logger().info("a line")
    return {"line": "written"}
''',
)


def ends_though_a_line_was_interrupted(project: Project, folder: Path, log_format: str) -> None:
    """A buffer cannot be written to by a handler that interrupts a write."""
    with project.serve(folder / "run", {"LOG_FORMAT": log_format}) as service:
        assert service.client.get("/signal").json() == {"line": "written"}
        assert service.process.wait(10) == 0
        assert "draining" in service.log


@pytest.mark.parametrize("log_format", ["console", "json"])
def test_a_signal_in_the_middle_of_a_log_line_still_ends_the_service(
    project: Project, tmp_path: Path, log_format: str
) -> None:
    ends_though_a_line_was_interrupted(project.variant(tmp_path / "own", SIGNAL), tmp_path, log_format)


@pytest.mark.sabotage
@pytest.mark.parametrize(
    "sabotage",
    [
        Body("server:DrainServer.handle_exit", "original(sig, frame)\nself.state.draining = False"),
        Body("server:DrainServer.handle_exit", "self.drain = 0\noriginal(sig, frame)"),
        Value("server:GRACE_SECONDS", "0"),
    ],
    ids=["readiness stays", "no drain", "cuts requests"],
)
def test_a_sabotaged_exit_fails_the_proof(bare_project: Project, tmp_path: Path, sabotage: Change) -> None:
    sick = bare_project.variant(tmp_path / "sick", SLOW, sabotage)
    with pytest.raises((AssertionError, httpx.TransportError, IndexError)):
        drains(sick, tmp_path / "run")


BLOCKED = Feature(
    "blocked",
    '''"""A route that blocks the event loop, so that nothing on it can end the process."""

import os
import time

from fastapi import APIRouter

router = APIRouter()


@router.get("/blocked")
async def blocked() -> None:
    os.write(1, b"blocked\\n")
    time.sleep(60)
''',
)
SOON = Value("server:DEADLINE_SECONDS", "1")


def ends_at_the_deadline(project: Project, folder: Path) -> None:
    """SIGTERM while the loop is blocked: one line and exit code 1, although nobody answers any more."""
    with project.serve(folder, {"SHUTDOWN_DRAIN_SECONDS": "0", "LOG_FORMAT": "json"}) as service:
        with socket.create_connection(("127.0.0.1", service.port)) as client:
            client.sendall(b"GET /blocked HTTP/1.1\r\nHost: localhost\r\n\r\n")
            service.process.wait_until(lambda: "blocked" in service.log, 10)
            service.process.send(signal.SIGTERM)
            assert service.process.wait(10) == 1
        line = json.loads(service.log.splitlines()[-1])
        assert (line["event"], line["level"]) == ("ended at the deadline of the shutdown", "error")


def test_a_blocked_event_loop_does_not_outlast_the_shutdown(bare_project: Project, tmp_path: Path) -> None:
    ends_at_the_deadline(bare_project.variant(tmp_path / "own", BLOCKED, SOON), tmp_path / "run")


@pytest.mark.sabotage
def test_without_the_deadline_a_blocked_loop_stays(bare_project: Project, tmp_path: Path) -> None:
    gone = Body("server:DrainServer.end_at_deadline", "return")
    sick = bare_project.variant(tmp_path / "sick", BLOCKED, SOON, gone)
    with pytest.raises(ServerError, match="did not end"):
        ends_at_the_deadline(sick, tmp_path / "run")


def test_json_lines_carry_the_ids_and_no_query(project: Project, tmp_path: Path) -> None:
    env = {"ENVIRONMENT": "staging", "DATABASE_URL": f"sqlite:///{tmp_path}/x.db"}
    project.cli("migrate", env=env, check=True)
    with project.serve(tmp_path / "run", {**env, "SHUTDOWN_DRAIN_SECONDS": "0"}) as service:
        item = service.client.post("/v1/items", json={"name": "x"}).json()["id"]
        answer = service.client.get(f"/v1/items/{item}?token=hunter2")
        service.client.get("/password=hunter2")
        service.process.wait_until(lambda: service.log.count('"request"') == 3, 5)
        lines = [json.loads(line) for line in service.log.splitlines()]
    (line,) = [line for line in lines if line.get("method") == "GET" and line.get("status") == 200]
    assert line["route"] == "/v1/items/{item_id}"
    assert line["request_id"] == answer.headers["x-request-id"]
    assert line["bytes"] == len(answer.content)
    assert 0 < line["ms"] < 10_000
    assert "hunter2" not in service.log
    assert "/livez" not in service.log


@pytest.mark.parametrize(
    ("url", "imported"),
    [
        ("postgresql://app:x@127.0.0.1:1/x", "['psycopg', 'sqlalchemy']"),
        ("sqlite:///x.db", "['aiosqlite', 'sqlalchemy']"),
    ],
    ids=["postgresql", "sqlite"],
)
def test_serve_imports_no_other_driver_and_no_tool_of_other_commands(project: Project, url: str, imported: str) -> None:
    code = (
        "import sys\nfrom my_service import cli, main\nmain.app()\n"
        "found = {'alembic', 'mako', 'aiosqlite', 'psycopg', 'sqlalchemy'} & set(sys.modules)\nprint(sorted(found))"
    )
    found = project.run(str(project.venv / "bin/python"), "-c", code, env={"DATABASE_URL": url}).stdout.strip()
    assert found == imported


def test_probes_may_ask_for_the_head_alone(project: Project, tmp_path: Path) -> None:
    with project.serve(tmp_path, {"SHUTDOWN_DRAIN_SECONDS": "0"}) as service:
        assert service.client.head("/livez").status_code == 200
        assert service.client.head("/readyz").status_code == 503  # no schema yet
        assert service.client.head("/version").content == b""


ALL = Feature(
    "everything",
    '''"""Takes what nobody else does, and more."""

from fastapi import APIRouter

router = APIRouter()


@router.get("/{rest:path}")
async def everything(rest: str) -> str:
    return rest
''',
)


def shown(project: Project, folder: Path, *changes: Change) -> set[str]:
    """Which probes a service with a route for everything answers itself."""
    made = project.variant(folder / "made", ALL, *changes)
    with made.serve(folder / "run", {"SHUTDOWN_DRAIN_SECONDS": "0"}) as service:
        assert service.client.get("/any/thing").json() == "any/thing"
        return {path for path in ("/livez", "/readyz") if "status" in service.client.get(path).json()}


def test_no_route_of_a_feature_hides_the_probes(project: Project, tmp_path: Path) -> None:
    assert shown(project, tmp_path) == {"/livez", "/readyz"}


LAST = """
app = original(settings, without=without)
app.router.routes.sort(key=lambda route: getattr(route, "path", "") in ("/livez", "/readyz"))
return app
"""


@pytest.mark.sabotage
def test_probes_that_stand_last_are_noticed(project: Project, tmp_path: Path) -> None:
    assert shown(project, tmp_path, Body("platform:create_app", LAST)) == set()


COLLECT = Feature(
    "collect",
    '''"""How long one full collection holds up everybody."""

import gc
import time

from fastapi import APIRouter

router = APIRouter()


@router.get("/collect")
async def collect() -> float:
    began = time.perf_counter()
    gc.collect()
    return time.perf_counter() - began


@router.get("/collects")
async def collects() -> bool:
    return gc.isenabled()
''',
)


def collects(project: Project, folder: Path, *changes: Change) -> str:
    """Whether a running service collects garbage, which it does not during its start."""
    with project.variant(folder / "made", COLLECT, *changes).serve(folder / "run") as service:
        return service.client.get("/collects").text


def test_garbage_is_collected_once_the_service_has_started(project: Project, tmp_path: Path) -> None:
    assert collects(project, tmp_path) == "true"


@pytest.mark.sabotage
def test_a_service_that_collects_no_garbage_is_noticed(project: Project, tmp_path: Path) -> None:
    sick = Body("server:DrainServer.startup", "await original(sockets)\ngc.disable()")
    assert collects(project, tmp_path, sick) == "false"


def longest_pause(project: Project, folder: Path, *changes: Change) -> float:
    """The shortest of some full collections of a service: the rest is the machine's."""
    made = project.variant(folder / "made", COLLECT, *changes)
    with made.serve(folder / "run") as service:
        return min(float(service.client.get("/collect").text) for _ in range(5))


@pytest.mark.timing
def test_a_full_garbage_collection_holds_nobody_up(project: Project, tmp_path: Path) -> None:
    frozen = longest_pause(project, tmp_path)
    sick = Body("server:DrainServer.startup", "await original(sockets)\ngc.unfreeze()")
    assert frozen < longest_pause(project, tmp_path / "sick", sick) / 3
