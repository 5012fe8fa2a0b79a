"""A new login reaches the pool while requests run: none fails, nothing is restarted, the old login can go."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

from tests.projects import Change, Project, Service
from tests.sabotage import Body, Value
from tests.secrets.conftest import deploy, load, swap, until, users
from tests.servers.process import ServerError
from tests.servers.vault import Space
from tests.service.conftest import migrated

pytestmark = pytest.mark.servers
FAST = Value("secrets:REFRESH_SECONDS", "0.2")


def as_user(url: str, name: str) -> str:
    return url.replace("//postgres@", f"//{name}:of-{name}@", 1)


def create(url: str, name: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'of-{name}'")
        connection.execute(f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {name}")


def drop(url: str, name: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"DROP OWNED BY {name}")
        connection.execute(f"DROP ROLE {name}")


def exists(url: str, name: str) -> bool:
    with psycopg.connect(url) as connection:
        return connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [name]).fetchone() is not None


def rotates(service: Service, url: str, rotate: Callable[[], None], gone: Callable[[str], None]) -> None:
    """Under load all connections go over to the new login; the old one is dropped, and nobody notices."""
    before = service.process.pid
    with load(service) as seen:
        until(lambda: seen[201] > 20)
        first = users(url)
        rotate()
        until(lambda: bool(now := users(url)) and not first & now)
        for name in first:
            gone(name)
            assert not exists(url, name)
        reached = seen[201]
        until(lambda: seen[201] > reached + 50)
    assert seen.keys() == {200, 201}, seen
    assert (service.process.pid, service.process.running) == (before, True)
    assert service.log.count("secret rotated") >= 1


def empties(service: Service, url: str, rotate: Callable[[], None], gone: Callable[[str], None]) -> None:
    """A pool that nobody uses gives its old connections up as well."""
    with load(service) as seen:
        until(lambda: seen[201] > 20)
    (first,) = users(url)
    rotate()
    until(lambda: first not in users(url))
    gone(first)
    assert service.client.get("/v1/items").status_code == 200


@dataclass
class Files:
    """A database with two logins, of which the first is in a file."""

    url: str
    folder: Path

    def say(self, name: str) -> None:
        swap(self.folder, database_url=as_user(self.url, name) + "\n")


@pytest.fixture
def files(project: Project, database_url: str, tmp_path: Path) -> Iterator[Files]:
    made = Files(database_url, tmp_path / "secrets")
    migrated(project, made.url)
    for name in ("before", "after"):
        create(made.url, name)
    made.say("before")
    yield made
    for name in ("before", "after"):
        if exists(made.url, name):
            drop(made.url, name)


@contextmanager
def serving(project: Project, files: Files, folder: Path, *changes: Change, **env: str) -> Iterator[Service]:
    made = project.variant(folder / "made", FAST, *changes)
    env = {"SECRETS_BACKEND": "files", "SECRETS_DIR": str(files.folder), **env}
    with made.serve(folder / "run", env) as service:
        yield service


def test_a_login_in_a_file_is_rotated_under_load(project: Project, files: Files, tmp_path: Path) -> None:
    with serving(project, files, tmp_path) as service:
        rotates(service, files.url, lambda: files.say("after"), lambda name: drop(files.url, name))
        create(files.url, "before")
        empties(service, files.url, lambda: files.say("before"), lambda name: drop(files.url, name))


def test_a_login_of_vault_is_rotated_under_load(
    project: Project, vault: Space, database_url: str, tmp_path: Path
) -> None:
    """Vault itself ends the old one; and when it is away for longer than a lease, the service is not ready."""
    side = deploy(vault, project, tmp_path, database_url, default_ttl=9, max_ttl=9)
    migrated(project, f"{database_url}?options=-crole%3Dmy_service_owner")
    side.write(database_url=database_url)
    with project.serve(tmp_path / "run", side.env) as service:
        rotates(service, database_url, lambda: None, lambda name: until(lambda: not exists(database_url, name)))
        outlives_a_seal(service, vault)


def outlives_a_seal(service: Service, vault: Space) -> None:
    """Ready as long as the lease is valid, and again at once when Vault is back, whatever the back-off had become."""
    vault.bao.seal()
    try:
        assert service.client.get("/readyz").status_code == 200
        until(lambda: service.client.get("/readyz").status_code == 503)
        told = service.client.get("/readyz").json()["parts"]["secrets"]
        assert told == {"ready": False, "evidence": "the lease has ended: database"}
    finally:
        vault.bao.unseal()
    begun = time.monotonic()
    until(lambda: service.client.get("/readyz").status_code == 200)
    assert time.monotonic() - begun < 10
    assert service.client.get("/v1/items").status_code == 200


WAITS = "self.wait_seconds, self.renewable = MAX_RETRY_SECONDS, math.inf"


@pytest.mark.sabotage
def test_a_store_that_waits_out_its_back_off_is_noticed(
    project: Project, vault: Space, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    side = deploy(vault, project, tmp_path, database_url, default_ttl=9, max_ttl=9)
    migrated(project, f"{database_url}?options=-crole%3Dmy_service_owner")
    side.write(database_url=database_url)
    sick = project.variant(tmp_path / "sick", Body("secrets:Store._back_off", WAITS))
    monkeypatch.setattr("tests.secrets.conftest.SECONDS", 15.0)
    with sick.serve(tmp_path / "run", side.env) as service, pytest.raises((AssertionError, ServerError)):
        outlives_a_seal(service, vault)


def test_a_login_that_does_not_work_yet_waits_until_it_does(project: Project, files: Files, tmp_path: Path) -> None:
    with serving(project, files, tmp_path) as service, load(service, 2) as seen:
        until(lambda: seen[201] > 5)
        for address in ("later", "mysql"):
            files.say(address)
            until(lambda: service.log.count("a new secret does not work; the old one stays") == 1)
        reached = seen[201]
        until(lambda: seen[201] > reached + 20)
        assert users(files.url) == {"before"}
        create(files.url, "later")
        files.say("later")
        until(lambda: users(files.url) == {"later"})
    assert seen.keys() == {200, 201}, seen
    drop(files.url, "later")


def test_what_the_environment_says_wins_and_is_never_rotated(project: Project, files: Files, tmp_path: Path) -> None:
    with serving(project, files, tmp_path, DATABASE_URL=as_user(files.url, "after")) as service:
        assert service.client.get("/v1/items").status_code == 200
        assert users(files.url) == {"after"}
        files.say("nobody")
        time.sleep(1)
        assert service.client.get("/v1/items").status_code == 200
        assert "secret" not in service.log.replace("/secrets", "")


@pytest.mark.sabotage
@pytest.mark.parametrize(
    ("check", "sabotage"),
    [
        (rotates, Body("db:Pool.move", "pass")),  # nothing goes over
        (rotates, Body("db:Pool.end_old", "pass")),  # old connections are kept after their use
        (empties, Body("db:Pool.move", "self.url = url_of(check_url(SecretStr(address)))")),  # what is idle stays
    ],
)
def test_a_sabotaged_pool_fails_the_proof(
    project: Project,
    files: Files,
    tmp_path: Path,
    check: Callable[..., None],
    sabotage: Body,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with serving(project, files, tmp_path, sabotage) as service:
        monkeypatch.setattr("tests.secrets.conftest.SECONDS", 3.0)
        with pytest.raises((AssertionError, ServerError)):
            check(service, files.url, lambda: files.say("after"), lambda name: drop(files.url, name))


@pytest.mark.sabotage
def test_a_pool_that_trusts_a_new_login_fails_requests(project: Project, files: Files, tmp_path: Path) -> None:
    trusting = Body("db:Pool.move", "self.url = url_of(check_url(SecretStr(address)))")
    with serving(project, files, tmp_path, trusting) as service, load(service, 2) as seen:
        until(lambda: seen[201] > 5)
        files.say("nobody")
        until(lambda: seen[503] + seen[500] > 0)
