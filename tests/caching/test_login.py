"""Passwords: a wrong one is a cache that is away, a rotated one reaches the client while requests run."""

from pathlib import Path

import pytest

from tests.caching.conftest import CACHE, Lab, lab
from tests.projects import Edit, Project
from tests.servers.memcached import Memcached
from tests.servers.redis import Redis

pytestmark = pytest.mark.servers
# Stands where the room `secrets` will: what it offers the others is all that the cache knows of it.
SECRETS = '''"""Hands on what a test says."""

from typing import Any

from fastapi import FastAPI

from .state import state_of


class Told:
    def __init__(self) -> None:
        self.calls: dict[str, Any] = {}

    def on_change(self, name: str, call: Any) -> None:
        self.calls[name] = call


def install(app: FastAPI, settings: Any) -> None:
    told = state_of(app).secrets = Told()

    @app.post("/rotate")
    async def rotate(url: str) -> None:
        await told.calls["cache_url"](url)
'''


def works_with_its_password(project: Project, folder: Path, server: Redis | Memcached) -> None:
    """One that is wrong at first, then the right one, then a rotated one."""
    made_of = project.variant(
        folder / "rotating",
        Edit("src/my_service/platform/__init__.py", '    "cache",\n', '    "cache",\n    "told",\n'),
    )
    (made_of.root / "src/my_service/platform/told.py").write_text(SECRETS)
    with lab(made_of, folder, server, env={"CACHE_URL": server.url("app:s3cr3t-wrong@")}) as made:
        for number in range(30):
            made.get(f"wrong-{number}")
        made.wait(lambda: made.lines("cache is away") == 1)
        rotate(made, server, "app:s3cr3t-one@")
        made.wait(lambda: made.lines("cache is back") == 1)
        made.wait(lambda: made.hits("right"))
        if isinstance(server, Redis):
            admin = server.client("app:s3cr3t-one@")
            admin.acl_setuser("app", enabled=True, passwords=["+s3cr3t-two"])
            rotate(made, server, "app:s3cr3t-two@")
            admin.acl_setuser("app", enabled=True, passwords=["-s3cr3t-one"])
            for client in admin.client_list():
                if client["user"] == "app" and client["id"] != str(admin.client_id()):
                    admin.client_kill_filter(_id=client["id"])
            made.wait(lambda: made.hits("rotated"))
        refused = made.service.client.post("/rotate", params={"url": "ftp://s3cr3t-four@nowhere"})
        assert refused.status_code == 500
        assert made.hits("still")
        assert made.lines("cache is away") == 1
        log = "\n".join(line for line in made.service.log.splitlines() if '"path":"/rotate"' not in line)
        assert "s3cr3t" not in log


def rotate(made: Lab, server: Redis | Memcached, login: str) -> None:
    assert made.service.client.post("/rotate", params={"url": server.url(login)}).status_code == 200


def test_redis_takes_a_rotated_password_without_a_restart(projects: dict[str, Project], tmp_path: Path) -> None:
    with Redis() as server:
        server.client().acl_setuser("app", enabled=True, passwords=["+s3cr3t-one"], keys=["*"], commands=["+@all"])
        works_with_its_password(projects["redis"], tmp_path, server)


def test_a_rotation_that_is_not_heard_is_noticed(projects: dict[str, Project], tmp_path: Path) -> None:
    edit = Edit(f"{CACHE}/readthrough.py", "old, self.backend = self.backend, backend", "old = backend")
    sick = projects["redis"].variant(tmp_path / "deaf", edit)
    with Redis() as server:
        server.client().acl_setuser("app", enabled=True, passwords=["+s3cr3t-one"], keys=["*"], commands=["+@all"])
        with pytest.raises(AssertionError):
            works_with_its_password(sick, tmp_path, server)


def test_memcached_takes_its_password(projects: dict[str, Project], tmp_path: Path) -> None:
    with Memcached(login="app:s3cr3t-one") as server:
        works_with_its_password(projects["memcached"], tmp_path, server)
