"""`make demo` from a small checkout: it serves what is in the work tree and leaves no process."""

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers.process import Process, alive, free_port

ROOT = Path(__file__).parents[1]
SERVER = """
import http.server, os, pathlib, sys

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(500 if self.path == os.environ.get("BROKEN") else 200)
        self.send_header("Content-Length", "0")
        self.end_headers()

pathlib.Path(os.environ["PID_FILE"]).write_text(str(os.getpid()))
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""
MAKEFILE = """
setup:
	@uv --version
dev:
	@test "$(FAIL)" != dev
	@echo [[ greeting ]]
	@python3 server.py $(PORT)
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Our demo with a template of a few lines: tagged, and changed since."""
    root = tmp_path / "checkout"
    for part in ("scripts", "tests"):
        ignored = shutil.ignore_patterns("__pycache__", "test_*.py")
        shutil.copytree(ROOT / part, root / part, ignore=ignored)
    (root / "template").mkdir()
    (root / "copier.yml").write_text("_subdirectory: template\n")
    (root / "template" / "server.py").write_text(SERVER)
    makefile = root / "template" / "Makefile"
    makefile.write_text(MAKEFILE.replace("[[ greeting ]]", "committed"))
    identity = ("-c", "user.name=test", "-c", "user.email=test@example.com")
    for command in (("init", "-q"), ("add", "-A"), ("commit", "-qm", "one"), ("tag", "v1.0.0")):
        subprocess.run(["git", *identity, *command], cwd=root, check=True)
    makefile.write_text(MAKEFILE.replace("[[ greeting ]]", "not yet committed"))
    return root


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    own = {"PORT": str(free_port()), "PID_FILE": str(tmp_path / "pid")}
    return {**os.environ, "DEMO_DIR": "", **own}


def run(checkout: Path, env: dict[str, str], **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "scripts.demo", "--once"],
        cwd=checkout,
        env=env | more,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,  # whoever is left behind holds our pipe open
    )


def served_by(env: dict[str, str]) -> int:
    return int(Path(env["PID_FILE"]).read_text())


@pytest.fixture
def serving(checkout: Path, env: dict[str, str], tmp_path: Path) -> Iterator[Process]:
    """The demo as a person starts it, once it serves."""
    log = tmp_path / "log"
    kept = env | {"DEMO_DIR": str(tmp_path / "kept")}
    process = Process([sys.executable, "-m", "scripts.demo"], log=log, cwd=checkout, env=kept)
    process.wait_until(lambda: "The folder stays." in log.read_text(), 60)
    yield process
    process.stop()


def test_once_shows_the_work_tree_and_ends_with_nothing_left(checkout: Path, env: dict[str, str]) -> None:
    done = run(checkout, env)
    assert done.returncode == 0, done.stderr
    assert {"/livez 200", "/readyz 200", "/docs 200", "/v1/items 200"} <= set(done.stdout.splitlines())
    assert "not yet committed" in done.stdout
    assert not alive(served_by(env))
    generated = done.stdout.partition("Generated ")[2].splitlines()[0]
    assert not Path(generated).exists()


def test_once_fails_when_an_address_does_not_answer_200(checkout: Path, env: dict[str, str]) -> None:
    done = run(checkout, env, BROKEN="/v1/items")
    assert done.returncode == 1
    assert done.stderr.endswith("demo: /v1/items answered 500 instead of 200\n")
    assert not alive(served_by(env))


def test_a_service_that_ends_is_reported(checkout: Path, env: dict[str, str]) -> None:
    done = run(checkout, env, FAIL="dev")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "demo: make ended with 2"


def test_a_taken_port_is_one_clear_line(checkout: Path, env: dict[str, str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        done = run(checkout, env, PORT=str(port))
    assert done.returncode == 1
    reason = f"127.0.0.1:{port} cannot be used (Address already in use)"
    assert done.stderr == f"demo: {reason}; try another: make demo PORT={port + 1}\n"


def test_a_folder_in_use_is_left_alone(checkout: Path, env: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "Makefile").write_text("mine")
    done = run(checkout, env, DEMO_DIR=str(tmp_path / "mine"))
    assert done.returncode == 1
    assert done.stderr == f"demo: DEMO_DIR is not an empty folder: {tmp_path / 'mine'}\n"
    assert (tmp_path / "mine" / "Makefile").read_text() == "mine"


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_stopped_demo_leaves_its_folder_and_no_process(
    serving: Process, env: dict[str, str], tmp_path: Path, how: signal.Signals
) -> None:
    assert alive(served_by(env))
    os.kill(serving.pid, how)
    assert serving.wait() == 0
    assert not alive(served_by(env))
    assert (tmp_path / "kept" / "server.py").exists()
