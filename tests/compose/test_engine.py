"""`make up`: a line for those without a container engine, and everything in real containers where one answers."""

import shutil
import ssl
import subprocess
import time
from pathlib import Path

import httpx
import pytest

from tests.compose.native import Native
from tests.compose.servers import cache
from tests.projects import Project, render
from tests.servers.memcached import Memcached

pytestmark = pytest.mark.servers
SECONDS = 180.0  # until everything serves, once the images are there


def engine_answers() -> bool:
    """Whether Docker is here, with Compose."""
    asked = ("docker", "compose", "ls")
    return bool(shutil.which("docker")) and subprocess.run(asked, capture_output=True, check=False).returncode == 0


def test_without_an_engine_it_says_what_to_do(project: Project) -> None:
    done = project.run("make", "up", "ENGINE=no-such-engine", check=False)
    assert done.returncode
    said = [line for line in done.stderr.splitlines() if not line.startswith("make")]
    assert said == ["no container engine answers: start Docker, or type make up ENGINE=podman"]


@pytest.mark.skipif(not engine_answers(), reason="no container engine answers: test_shape.py runs the services without")
def test_everything_comes_up_in_containers(project: Project, tmp_path: Path) -> None:
    made = project.variant(tmp_path / "service")
    compose = ("docker", "compose", "--profile", "production", "--profile", "backup")
    made.run(*compose, "config", "--quiet")
    try:
        made.run("make", "up")
        made.run(*compose, "cp", "balancer:/tls/local.pem", "local.pem")
        context = ssl.create_default_context(cafile=str(made.root / "local.pem"))
        with httpx.Client(base_url="https://localhost:8443", verify=context, trust_env=False, timeout=10) as client:
            deadline = time.monotonic() + SECONDS
            while client.get("/v1/items").status_code != 200:
                assert time.monotonic() < deadline
                time.sleep(1)
            assert client.post("/v1/items", json={"name": "kettle"}).status_code == 201
        made.run(*compose, "run", "--rm", "backup")
    finally:
        made.run(*compose, "down", "--volumes", check=False)


def test_the_other_cache_starts_as_written(template: Path, tmp_path: Path) -> None:
    native = Native(Project(render(template, tmp_path / "service", cache="memcached")), tmp_path / "native")
    with cache(native) as server:
        client = Memcached()
        client.port = server.port
        assert client.answers()
        assert b"STAT limit_maxbytes 67108864" in client.say("stats", end=b"END\r\n")  # 64 MB
        client.close()
