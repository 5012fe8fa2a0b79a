"""Passwords: a wrong one is a cache that is away, a rotated one reaches the client while requests run."""

from pathlib import Path

import pytest

from tests.caching.conftest import lab
from tests.projects import Project
from tests.sabotage import Body
from tests.servers.memcached import Memcached
from tests.servers.redis import Redis

pytestmark = pytest.mark.servers
LOGIN = "app:s3cr3t-one"


@pytest.fixture
def users(redis: Redis) -> Redis:
    """A Redis on which the service has a login."""
    redis.client().acl_setuser("app", enabled=True, passwords=["+s3cr3t-one"], keys=["*"], commands=["+@all"])
    return redis


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
    with lab(project, folder, env=env) as made:
        assert made.rush([f"/lab/get/plain/wrong-{number}" for number in range(30)]) == {200: 30}
        made.wait(lambda: made.lines("cache is unavailable") == 1)
        rotate(server.url(f"{LOGIN}@"))
        made.wait(lambda: made.lines("cache is available again") == 1, 5)
        made.wait(lambda: made.hits("right"))
        if isinstance(server, Redis):
            admin = server.client(f"{LOGIN}@")
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
        assert made.lines("cache is unavailable") == 1
        assert "s3cr3t" not in made.service.log


def test_redis_takes_a_rotated_password_without_a_restart(on_redis: Project, tmp_path: Path, users: Redis) -> None:
    works_with_its_password(on_redis, tmp_path, users)


def test_memcached_takes_its_password(on_memcached: Project, tmp_path: Path) -> None:
    with Memcached(login=LOGIN) as server:
        works_with_its_password(on_memcached, tmp_path, server)


@pytest.mark.sabotage
def test_a_rotation_that_is_not_heard_is_noticed(on_redis: Project, tmp_path: Path, users: Redis) -> None:
    deaf = on_redis.variant(tmp_path / "deaf", Body("cache:ReadThrough.move", "await backend.close()"))
    with pytest.raises(AssertionError, match="not within 5 s"):
        works_with_its_password(deaf, tmp_path, users)
