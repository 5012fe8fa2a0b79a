"""Passwords: a wrong one is a cache that is away, a rotated one reaches the client while requests run."""

from pathlib import Path

import pytest

from tests.caching.conftest import CACHE, lab
from tests.projects import Edit, Project
from tests.servers.memcached import Memcached
from tests.servers.redis import Redis

pytestmark = pytest.mark.servers
QUICK = Edit("src/my_service/platform/secrets/files.py", "LOOK = 5", "LOOK = 0.2")


def works_with_its_password(project: Project, folder: Path, server: Redis | Memcached) -> None:
    """One that is wrong at first, then the right one, then a rotated one: in a file, as Vault's agent writes it."""
    secret = folder / "secrets" / "cache_url"
    secret.parent.mkdir()

    def rotate(url: str) -> None:
        new = secret.with_name(".new")
        new.write_text(url)
        new.rename(secret)

    rotate(server.url("app:s3cr3t-wrong@"))
    env = {"SECRETS_BACKEND": "files", "SECRETS_DIR": str(secret.parent)}
    with lab(project.variant(folder / "quick", QUICK), folder, env=env) as made:
        for number in range(30):
            made.get(f"wrong-{number}")
        made.wait(lambda: made.lines("cache is away") == 1)
        rotate(server.url("app:s3cr3t-one@"))
        made.wait(lambda: made.lines("cache is back") == 1)
        made.wait(lambda: made.hits("right"))
        if isinstance(server, Redis):
            admin = server.client("app:s3cr3t-one@")
            admin.acl_setuser("app", enabled=True, passwords=["+s3cr3t-two"])
            rotate(server.url("app:s3cr3t-two@"))
            made.wait(lambda: made.lines("secret rotated") == 2)
            admin.acl_setuser("app", enabled=True, passwords=["-s3cr3t-one"])
            for client in admin.client_list():
                if client["user"] == "app" and client["id"] != str(admin.client_id()):
                    admin.client_kill_filter(_id=client["id"])
            made.wait(lambda: made.hits("rotated"))
        rotate("ftp://s3cr3t-four@nowhere")
        made.wait(lambda: made.lines("a new secret does not work; the old one stays") == 1)
        assert made.hits("still")
        assert made.lines("cache is away") == 1
        assert "s3cr3t" not in made.service.log


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
