"""`deploy/vault/apply.py`: it makes what is not there, mends what differs, leaves alone what is right."""

from collections.abc import Iterator
from pathlib import Path

import hvac
import psycopg
import pytest

from tests.projects import Project, render
from tests.sabotage import Line
from tests.servers.postgres import Postgres
from tests.servers.process import free_port
from tests.servers.vault import OpenBao, Reviewer, Space
from tests.vault.conftest import SLUG, Deployed, applied_sql

pytestmark = pytest.mark.servers
ROLE = f"auth/approle/role/{SLUG}"
DEVICE = "sys/audit/stdout"


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Reviewer]:
    """A cluster that is asked whose token it is."""
    (tmp_path / "cluster").mkdir()
    with Reviewer(tmp_path / "cluster") as reviewer:
        yield reviewer


def test_the_second_run_changes_nothing(vault: Space, deployed: Deployed, database_url: str, cluster: Reviewer) -> None:
    deployed.set("kubernetes", host=cluster.url, ca_file=str(cluster.ca))
    deployed.set("database", connection_url=applied_sql(deployed, database_url))
    first = deployed.apply(vault.env, vault.root)
    assert (first.returncode, first.stderr) == (0, "")
    left = f"{DEVICE}: skipped, audit devices belong to the whole server and not to a namespace"
    assert first.stdout.splitlines() == [
        left,
        "sys/policies/acl/my-service: created",
        "sys/auth/approle: created",
        f"{ROLE}: created",
        "sys/auth/kubernetes: created",
        "auth/kubernetes/config: created",
        "auth/kubernetes/role/my-service: created",
        "sys/mounts/database: created",
        "database/config/my-service: created",
        "database/roles/my-service: created",
        "changes: 9",
    ]
    wrote = vault.written()
    assert f"database/roles/{SLUG}" in wrote
    again = deployed.apply(vault.env, vault.root)
    assert (again.returncode, again.stdout, again.stderr) == (0, f"{left}\nnothing to change\n", "")
    assert vault.written() == wrote


def test_what_somebody_changed_by_hand_is_changed_back_and_named(vault: Space, deployed: Deployed) -> None:
    assert deployed.apply(vault.env, vault.root).returncode == 0
    vault.client().write_data(ROLE, data={"token_ttl": "90s", "token_policies": ["my-service", "admin"]})
    vault.client().sys.create_or_update_acl_policy("my-service", 'path "*" { capabilities = ["read"] }')
    assert deployed.apply(vault.env, vault.root).stdout.splitlines()[1:] == [
        "sys/policies/acl/my-service: changed policy",
        f"{ROLE}: changed token_policies, token_ttl",
        "changes: 2",
    ]
    role = vault.client().read(ROLE)["data"]
    assert (role["token_ttl"], role["token_policies"]) == (1200, ["my-service"])


def test_openbao_has_its_audit_device_from_its_configuration(bao: OpenBao, deployed: Deployed) -> None:
    """It is said and no error that none can be made, and one that is there is right."""
    env = {"VAULT_ADDR": bao.url}
    done = deployed.apply(env, bao.root)
    line = f"{DEVICE}: skipped, OpenBao reads it from its own configuration; vault.toml has the line"
    assert (done.returncode, done.stderr, done.stdout.splitlines()[0]) == (0, "", line)
    deployed.set("audit", path="seen")
    again = deployed.apply(env, bao.root)
    assert (again.returncode, again.stdout, again.stderr) == (0, "nothing to change\n", "")


def test_by_tls_and_where_the_server_lets_it_an_audit_device_is_made(
    deployed: Deployed, project: Project, tmp_path: Path
) -> None:
    """As with Vault; and the service itself reads by TLS, from a server whose CA it was told."""
    with OpenBao(tls=True, more="unsafe_allow_api_audit_creation = true") as server:
        stranger = deployed.apply({"VAULT_ADDR": server.url}, server.root)
        assert (stranger.returncode, stranger.stderr) == (2, f"apply: {server.url} does not respond (SSLError)\n")
        env = {"VAULT_ADDR": server.url, "VAULT_CACERT": str(server.ca)}
        done = deployed.apply(env, server.root)
        assert (done.returncode, done.stdout.splitlines()[0]) == (0, f"{DEVICE}: created"), done.stderr
        server.kill()
        server.start()
        assert deployed.apply(env, server.root).stdout == "nothing to change\n"

        admin = server.client()
        admin.secrets.kv.v2.create_or_update_secret(SLUG, {"database_url": f"sqlite:///{tmp_path}/x.db"})
        (tmp_path / "id").write_text(admin.auth.approle.generate_secret_id(SLUG)["data"]["secret_id"])
        env |= {"SECRETS_BACKEND": "vault", "VAULT_AUTH_METHOD": "approle", "VAULT_SECRET_PATH": SLUG}
        env["VAULT_ROLE_ID"] = admin.auth.approle.read_role_id(SLUG)["data"]["role_id"]
        env["VAULT_SECRET_ID_FILE"] = str(tmp_path / "id")
        with project.serve(tmp_path / "run", env) as service:
            said = service.client.get("/readyz").json()["parts"]["secrets"]["evidence"]
        assert said == "secrets of Vault are current: 1"
        read = "from my_service.main import app; app()"
        quick = "from my_service.platform import secrets; secrets.STARTUP_SECONDS = 0.5; "
        told = project.run(
            str(project.venv / "bin/python"), "-c", quick + read, env={**env, "VAULT_CACERT": ""}, check=False
        )
        assert (told.returncode, "auth/approle/login: SSLError; gave up" in told.stderr) == (1, True)


def test_a_pod_logs_in_by_its_service_account_and_no_other(vault: Space, deployed: Deployed, cluster: Reviewer) -> None:
    deployed.set("kubernetes", host=cluster.url, ca_file=str(cluster.ca))
    assert deployed.apply(vault.env, vault.root).returncode == 0
    mine, others = cluster.issue(SLUG, SLUG), cluster.issue(SLUG, "default")
    pod = hvac.Client(vault.url, namespace=vault.name)
    assert pod.auth.kubernetes.login(SLUG, mine)["auth"]["policies"] == [SLUG]
    with pytest.raises(hvac.exceptions.Forbidden):
        pod.auth.kubernetes.login(SLUG, others)
    cluster.accounts.clear()  # the pod is gone
    with pytest.raises(hvac.exceptions.Forbidden):
        pod.auth.kubernetes.login(SLUG, mine)


def test_roles_of_the_database_may_use_what_migrations_make_later(deployed: Deployed, database_url: str) -> None:
    for _ in range(2):
        applied_sql(deployed, database_url)
    with psycopg.connect(database_url) as connection:
        connection.execute("CREATE ROLE app_user LOGIN IN ROLE my_service_app")
        connection.execute("SET ROLE my_service_owner; CREATE TABLE later (id int)")
    with psycopg.connect(database_url, user="app_user") as connection:
        connection.execute("INSERT INTO later VALUES (1)")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("CREATE TABLE another (id int)")
    with psycopg.connect(database_url, user="my_service_vault") as connection:
        connection.execute("CREATE ROLE made IN ROLE my_service_app; DROP ROLE made")
        connection.rollback()
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("DROP ROLE app_user")


def two_services(
    template: Path, vault: Space, deployed: Deployed, postgres: Postgres, folder: Path, *changes: Line
) -> None:
    """Rotating the password of one service's role leaves the other able to create logins."""
    other = Deployed(render(template, folder, project_slug="other-service"), "other-service")
    for change in changes:
        change.apply(other.root)
    for each in (other, deployed):
        each.set("database", connection_url=applied_sql(each, postgres.create_database()))
        done = each.apply(vault.env, vault.root)
        assert (done.returncode, done.stderr) == (0, "")
    admin = vault.client()
    admin.write_data(f"database/rotate-root/{SLUG}", data={})
    try:
        for slug in (SLUG, other.slug):
            assert admin.secrets.database.generate_credentials(slug)["data"]["username"]
    finally:
        admin.write_data("sys/leases/revoke-prefix/database/creds", data={"sync": True})


def test_two_services_on_one_postgresql_have_roles_of_their_own(
    template: Path, vault: Space, deployed: Deployed, postgres: Postgres, tmp_path: Path
) -> None:
    two_services(template, vault, deployed, postgres, tmp_path / "other")


@pytest.mark.sabotage
def test_a_role_that_two_services_share_breaks_one_of_them(
    template: Path, vault: Space, deployed: Deployed, postgres: Postgres, tmp_path: Path
) -> None:
    shared = Line("deploy/vault/vault.toml", "username", 'username = "my_service_vault"')
    with pytest.raises((AssertionError, hvac.exceptions.VaultError)):
        two_services(template, vault, deployed, postgres, tmp_path / "other", shared)


MISTAKES = {
    "no address": "set VAULT_ADDR and VAULT_TOKEN: an administrator's token, not the service's",
    "no token": "set VAULT_ADDR and VAULT_TOKEN: an administrator's token, not the service's",
    "nobody": "http://127.0.0.1:{port} does not respond (ConnectionError)",
    "a wrong token": "policy: the token may not do this (403)",
    "no CA": "VAULT_CACERT: /nope: not a readable PEM file (FileNotFoundError)",
    "sealed": "{url} is sealed, or down (503)",
    "broken TOML": "vault.toml: Expected ']' at the end of a table declaration (at line 1, column 8)",
    "no policy": "vault.toml: [policy] name is missing ('policy')",
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_without_a_secret(vault: Space, deployed: Deployed, mistake: str) -> None:
    env, token, port = vault.env, vault.root, free_port()
    match mistake:
        case "no address":
            env = {}
        case "no token":
            token = ""
        case "nobody":
            env |= {"VAULT_ADDR": f"http://127.0.0.1:{port}"}
        case "a wrong token":
            token = "hvs.not-an-administrators"
        case "no CA":
            env |= {"VAULT_CACERT": "/nope"}
        case "sealed":
            vault.bao.seal()
        case "no policy":
            (deployed.folder / "vault.toml").write_text("[kv]\nmount = 'secret'\n")
        case _:
            (deployed.folder / "vault.toml").write_text("[broken\n")
    try:
        done = deployed.apply(env, token)
    finally:
        vault.bao.unseal()
    assert done.returncode == 2
    assert done.stderr == f"apply: {MISTAKES[mistake].format(port=port, url=vault.url)}\n"
    assert not vault.client().read("sys/policies/acl/my-service")


def test_a_part_that_is_refused_does_not_keep_the_others_from_being_made(vault: Space, deployed: Deployed) -> None:
    vault.client().write_data("sys/mounts/old", data={"type": "kv", "options": {"version": "1"}})
    deployed.set("kv", mount="old")
    wrong = f"postgresql://{{{{username}}}}:{{{{password}}}}@127.0.0.1:{free_port()}/orders"
    deployed.set("kubernetes", host="https://kubernetes.test", ca_file="lost.pem")
    deployed.set("database", connection_url=wrong)
    done = deployed.apply(vault.env, vault.root, VAULT_DATABASE_PASSWORD="a-planted-password")
    assert done.returncode == 1
    kv, kubernetes, database = done.stderr.splitlines()
    assert kv == "apply: kv: sys/mounts/old: in use by another kv; set a new path in vault.toml"
    assert kubernetes.startswith("apply: kubernetes: [Errno 2] No such file or directory")
    assert database.startswith("apply: database: error creating database object: error verifying ")
    assert f"{ROLE}: created" in done.stdout
    assert "a-planted-password" not in done.stdout + done.stderr
