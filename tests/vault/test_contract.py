"""What the service counts on, asked of a real server: OpenBao of the kit, and of one of yours.

Yours is asked where VAULT_TEST_ADDR and VAULT_TEST_TOKEN name it (Vault or OpenBao; it is written to), and its database
engine where VAULT_TEST_DATABASE_URL names a PostgreSQL that both it and we reach as its superuser. Each is set up by
the emitted `deploy/vault/apply.py`, and what that made is removed.
"""

import os
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import hvac
import psycopg
import pytest
from hvac import exceptions

from tests.projects import Project, render
from tests.sabotage import Line
from tests.servers.postgres import Postgres
from tests.servers.vault import OpenBao, Space
from tests.service.conftest import migrated
from tests.vault.conftest import SLUG, Deployed, applied_sql, copied

pytestmark = pytest.mark.servers
YOURS = os.environ.get("VAULT_TEST_ADDR")
YOUR_DATABASE = os.environ.get("VAULT_TEST_DATABASE_URL")
TOKEN_TTL, TOKEN_MAX = 5, 8  # seconds, really waited for: a slow machine has two to spare


@dataclass(frozen=True)
class Target:
    """A server that was set up for the service."""

    url: str
    root: str
    slug: str
    namespace: str
    database_url: str

    def client(self, token: str = "") -> hvac.Client:
        return hvac.Client(self.url, token, namespace=self.namespace or None, timeout=5)

    def admin(self) -> hvac.Client:
        return self.client(self.root)

    def ids(self, **more: Any) -> tuple[str, Any]:
        """The two halves of a login by AppRole; the second as it was answered."""
        method = self.admin().auth.approle
        role_id = method.read_role_id(self.slug)["data"]["role_id"]
        return role_id, method.generate_secret_id(self.slug, **more)

    def login(self) -> hvac.Client:
        """The service, as it starts."""
        client = self.client()
        role_id, answer = self.ids()
        client.auth.approle.login(role_id, answer["data"]["secret_id"])
        return client

    def read(self, client: hvac.Client, path: str = "") -> Any:
        kv = client.secrets.kv.v2
        return kv.read_secret_version(path or self.slug, raise_on_deleted_version=True)["data"]["data"]


@pytest.fixture(scope="module", params=["the kit's", *(["yours"] if YOURS else [])])
def target(
    request: pytest.FixtureRequest,
    template: Path,
    rendered: Path,
    bao: OpenBao,
    postgres: Postgres,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Target]:
    folder = tmp_path_factory.mktemp("deploy")
    if request.param == "yours":
        slug = f"contract-{secrets.token_hex(4)}"
        found = Target(str(YOURS), os.environ["VAULT_TEST_TOKEN"], slug, "", YOUR_DATABASE or "")
        deploy(Deployed(render(template, folder, project_slug=slug), slug), found)
        yield found
        remove(found)
        return
    with bao.space() as space:
        found = Target(space.url, space.root, SLUG, space.name, postgres.create_database())
        deploy(Deployed(copied(rendered, folder)), found)
        yield found


def deploy(deployed: Deployed, target: Target) -> None:
    """As an administrator does it; a second time, which must find nothing to do."""
    if target.database_url:
        where = applied_sql(deployed, target.database_url)
        deployed.set("database", connection_url=where, default_ttl=60, max_ttl=120)
    for _ in range(2):
        done = deployed.apply({"VAULT_ADDR": target.url, "VAULT_NAMESPACE": target.namespace}, target.root)
        assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == "nothing to change"
    target.admin().secrets.kv.v2.create_or_update_secret(target.slug, {"sentry_dsn": "one"})


def remove(target: Target) -> None:
    """Leave a server of yours as it was, but for what is shared: engines, logins, audit device."""
    slug, package = target.slug, target.slug.replace("-", "_")
    for prefix in (f"database/creds/{slug}", "auth/approle/login") if target.database_url else ():
        target.admin().write_data(f"sys/leases/revoke-prefix/{prefix}", data={"sync": True})
    paths = [f"sys/policies/acl/{slug}", f"auth/approle/role/{slug}", f"secret/metadata/{slug}"]
    for path in (*paths, f"database/roles/{slug}", f"database/config/{slug}"):
        target.admin().delete(path)
    if target.database_url:
        with psycopg.connect(target.database_url, autocommit=True) as connection:
            made = connection.execute("SELECT rolname FROM pg_roles WHERE rolname LIKE %s", [f"{package}_%"])
            for (role,) in made.fetchall():
                connection.execute(f'DROP OWNED BY "{role}"; DROP ROLE "{role}"'.encode())


def test_the_service_reads_its_own_secret_and_sees_a_new_version(target: Target) -> None:
    client = target.login()
    kv, admin = client.secrets.kv.v2, target.admin().secrets.kv.v2
    assert target.read(client) == {"sentry_dsn": "one"}
    before = kv.read_secret_metadata(target.slug)["data"]["current_version"]
    admin.create_or_update_secret(target.slug, {"sentry_dsn": "two"})
    assert kv.read_secret_metadata(target.slug)["data"]["current_version"] == before + 1
    assert target.read(client) == {"sentry_dsn": "two"}
    admin.create_or_update_secret(target.slug, {"sentry_dsn": "one"})


@pytest.mark.parametrize(
    "forbidden",
    [
        "GET secret/data/others",
        "GET secret/metadata/others",
        "LIST secret/metadata",
        "POST secret/data/{slug}",
        "DELETE secret/data/{slug}",
        "DELETE secret/metadata/{slug}",
        "GET sys/policies/acl/{slug}",
        "POST auth/approle/role/{slug}/secret-id",
        "GET database/config/{slug}",
        "POST auth/token/create",
        "GET sys/mounts",
    ],
)
def test_the_service_may_do_nothing_else(target: Target, forbidden: str) -> None:
    method, path = forbidden.format(slug=target.slug).split()
    with pytest.raises(exceptions.Forbidden):
        target.login().adapter.request(method, f"/v1/{path}", json={} if method == "POST" else None)


def test_a_deleted_version_and_a_missing_path_are_404_and_tell_which(target: Target) -> None:
    admin = target.admin()
    admin.secrets.kv.v2.create_or_update_secret(target.slug, {"sentry_dsn": "gone"})
    admin.secrets.kv.v2.delete_latest_version_of_secret(target.slug)
    with pytest.raises(exceptions.InvalidPath) as deleted:
        target.read(target.login())
    assert deleted.value.json["data"]["metadata"]["deletion_time"]
    admin.secrets.kv.v2.create_or_update_secret(target.slug, {"sentry_dsn": "one"})
    with pytest.raises(exceptions.InvalidPath) as missing:
        target.read(admin, f"{target.slug}-missing")
    assert missing.value.json == {"errors": []}


def test_a_login_with_wrong_halves_is_400(target: Target) -> None:
    with pytest.raises(exceptions.InvalidRequest):
        target.client().auth.approle.login("nobody", "nothing")
    with pytest.raises(exceptions.InvalidRequest):
        target.client().auth.approle.login(target.ids()[0], "nothing")


def test_a_wrapped_secret_id_opens_once(target: Target) -> None:
    role_id, answer = target.ids(wrap_ttl="60s")
    assert answer["data"] is None
    wrapping = answer["wrap_info"]["token"]
    client = target.client()
    client.token = wrapping
    secret_id = client.sys.unwrap()["data"]["secret_id"]
    client.auth.approle.login(role_id, secret_id)
    assert target.read(client) == {"sentry_dsn": "one"}
    client.token = wrapping
    with pytest.raises(exceptions.InvalidRequest):
        client.sys.unwrap()


def test_a_token_is_renewed_until_its_maximum_and_then_403(target: Target) -> None:
    role = f"auth/approle/role/{target.slug}"
    usual = {name: target.admin().read(role)["data"][name] for name in ("token_ttl", "token_max_ttl")}
    target.admin().write_data(role, data={"token_ttl": TOKEN_TTL, "token_max_ttl": TOKEN_MAX})
    try:
        renewed_until_its_maximum(target)
    finally:
        target.admin().write_data(role, data=usual)


def renewed_until_its_maximum(target: Target) -> None:
    client = target.login()
    begun = time.monotonic()
    time.sleep(TOKEN_TTL - 2)
    assert client.auth.token.renew_self()["auth"]["lease_duration"] >= TOKEN_TTL - 1
    time.sleep(begun + TOKEN_TTL + 0.5 - time.monotonic())
    assert target.read(client) == {"sentry_dsn": "one"}  # it lives, as it was renewed
    assert client.auth.token.renew_self()["auth"]["lease_duration"] <= TOKEN_MAX - TOKEN_TTL
    time.sleep(begun + TOKEN_MAX - time.monotonic())
    with pytest.raises(exceptions.Forbidden):
        while time.monotonic() < begun + TOKEN_MAX + 5:  # the server ends it when it gets to it
            target.read(client)
            time.sleep(0.2)
    assert target.read(target.login()) == {"sentry_dsn": "one"}


def test_a_secret_id_and_the_tokens_made_with_it_are_revoked_as_the_docs_say(target: Target) -> None:
    role_id, answer = target.ids()
    client = target.client()
    client.auth.approle.login(role_id, answer["data"]["secret_id"])
    accessor = {"secret_id_accessor": answer["data"]["secret_id_accessor"]}
    target.admin().write_data(f"auth/approle/role/{target.slug}/secret-id-accessor/destroy", data=accessor)
    with pytest.raises(exceptions.InvalidRequest):
        target.client().auth.approle.login(role_id, answer["data"]["secret_id"])
    assert target.read(client) == {"sentry_dsn": "one"}
    target.admin().write_data("sys/leases/revoke-prefix/auth/approle/login", data={"sync": True})
    with pytest.raises(exceptions.Forbidden):
        target.read(client)


@dataclass(frozen=True)
class User:
    """A login of the database, made for the service."""

    url: str
    client: hvac.Client
    answer: Any

    def let_in(self) -> bool:
        data = self.answer["data"]
        try:
            with psycopg.connect(self.url, user=data["username"], password=data["password"]) as connection:
                return bool(connection.info.user == data["username"])
        except psycopg.OperationalError:
            return False

    def ends(self) -> bool:
        """Whether it is let in no more, within the time that a real server takes."""
        deadline = time.monotonic() + 10
        while self.let_in() and time.monotonic() < deadline:
            time.sleep(0.1)
        return not self.let_in()


@pytest.fixture
def user(target: Target) -> User:
    if not target.database_url:
        pytest.skip("VAULT_TEST_DATABASE_URL names no PostgreSQL")
    client = target.login()
    made = User(target.database_url, client, client.secrets.database.generate_credentials(target.slug))
    assert (made.answer["renewable"], made.answer["lease_duration"]) == (True, 60)
    assert made.let_in()
    return made


def test_logins_of_the_database_end_with_the_token_that_asked_for_them(user: User) -> None:
    assert user.client.sys.renew_lease(user.answer["lease_id"], increment=30)["lease_duration"] <= 60
    assert user.let_in()
    user.client.auth.token.revoke_self()
    assert user.ends()


def test_logins_of_the_database_are_revoked_as_the_docs_say(target: Target, user: User) -> None:
    target.admin().write_data(f"sys/leases/revoke-prefix/database/creds/{target.slug}", data={"sync": True})
    assert user.ends()
    assert user.client.lookup_token()["data"]["ttl"] > 0


def test_logins_are_made_also_when_only_vault_knows_its_password(target: Target, user: User) -> None:
    target.admin().write_data(f"database/rotate-root/{target.slug}", data={})
    again = user.client.secrets.database.generate_credentials(target.slug)
    assert User(target.database_url, user.client, again).let_in()


def test_the_service_itself_starts_on_it_and_serves(
    target: Target, project: Project, user: User, tmp_path: Path
) -> None:
    """With a wrapped secret id, and as a user of the database that was made for it."""
    owner = f"{target.slug.replace('-', '_')}_owner"
    migrated(project, f"{target.database_url}?options=-crole%3D{owner}")
    parts = urlsplit(target.database_url)
    address = parts._replace(netloc=f"{parts.hostname}:{parts.port or 5432}").geturl()
    target.admin().secrets.kv.v2.create_or_update_secret(target.slug, {"database_url": address})
    role_id, answer = target.ids(wrap_ttl="60s")
    (tmp_path / "secret-id").write_text(answer["wrap_info"]["token"])
    env = {
        "SECRETS_BACKEND": "vault",
        "VAULT_ADDR": target.url,
        "VAULT_AUTH_METHOD": "approle",
        "VAULT_DATABASE_ROLE": target.slug,
        "VAULT_NAMESPACE": target.namespace,
        "VAULT_ROLE_ID": role_id,
        "VAULT_SECRET_ID_FILE": str(tmp_path / "secret-id"),
        "VAULT_SECRET_ID_WRAPPED": "true",
        "VAULT_SECRET_PATH": target.slug,
    }
    with project.serve(tmp_path / "run", env) as service:
        assert service.client.post("/v1/items", json={"name": "kept"}).status_code == 201
        assert service.client.get("/readyz").json()["parts"]["secrets"]["evidence"] == "secrets of Vault are current: 1"
        with psycopg.connect(target.database_url) as connection:
            rows = connection.execute("SELECT usename FROM pg_stat_activity WHERE usename LIKE 'v-%'").fetchall()
        assert rows
    again = project.cli("serve", env=env)
    assert again.returncode == 78
    assert "ALARM" in again.stderr
    target.admin().secrets.kv.v2.create_or_update_secret(target.slug, {"sentry_dsn": "one"})


@pytest.mark.sabotage
def test_a_wider_policy_is_noticed(deployed: Deployed, vault: Space) -> None:
    """The sabotage of `test_the_service_may_do_nothing_else`."""
    Line("deploy/vault/policy.hcl", 'path "secret/data/', 'path "secret/data/*" {').apply(deployed.root)
    target = Target(vault.url, vault.root, SLUG, vault.name, "")
    assert deployed.apply(vault.env, vault.root).returncode == 0
    for name in ("others", SLUG):
        target.admin().secrets.kv.v2.create_or_update_secret(name, {"key": "one"})
    assert target.read(target.login(), "others") == {"key": "one"}
