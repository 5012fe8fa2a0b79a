"""`deploy/vault/apply.py`: it makes what is not there, mends what differs, leaves alone what is right."""

import hvac
import psycopg
import pytest

from tests.servers.postgres import Postgres
from tests.servers.process import free_port
from tests.servers.vault import Vault
from tests.vault.conftest import VAULTS_PASSWORD, Deployed, applied_sql

pytestmark = pytest.mark.servers
ROLE = "auth/approle/role/my-service"


def test_the_second_run_changes_nothing(vault: Vault, deployed: Deployed, postgres: Postgres) -> None:
    deployed.set("kubernetes", host="https://kubernetes.default.svc")
    deployed.set("database", connection_url=applied_sql(deployed, postgres))
    first = deployed.apply(vault.url, vault.root, {"VAULT_DATABASE_PASSWORD": VAULTS_PASSWORD})
    assert (first.returncode, first.stderr) == (0, "")
    assert first.stdout.splitlines() == [
        "sys/audit/stdout: made",
        "sys/policies/acl/my-service: made",
        "sys/auth/approle: made",
        f"{ROLE}: made",
        "sys/auth/kubernetes: made",
        "auth/kubernetes/config: made",
        "auth/kubernetes/role/my-service: made",
        "sys/mounts/database: made",
        "database/config/my-service: made",
        "database/roles/my-service: made",
        "changes: 10",
    ]
    asked = len(vault.seen)
    again = deployed.apply(vault.url, vault.root, {"VAULT_DATABASE_PASSWORD": VAULTS_PASSWORD})
    assert (again.returncode, again.stdout, again.stderr) == (0, "nothing to change\n", "")
    assert {each.method for each in vault.seen[asked:]} == {"GET"}


def test_what_somebody_changed_by_hand_is_changed_back_and_named(vault: Vault, deployed: Deployed) -> None:
    assert deployed.apply(vault.url, vault.root).returncode == 0
    vault.client().write_data(ROLE, data={"token_ttl": "90s", "token_policies": ["my-service", "admin"]})
    vault.client().sys.create_or_update_acl_policy("my-service", 'path "*" { capabilities = ["read"] }')
    assert deployed.apply(vault.url, vault.root).stdout.splitlines() == [
        "sys/policies/acl/my-service: changed policy",
        f"{ROLE}: changed token_policies, token_ttl",
        "changes: 2",
    ]
    role = vault.client().read(ROLE)["data"]
    assert (role["token_ttl"], role["token_policies"]) == (1200, ["my-service"])


def test_a_pod_logs_in_by_its_service_account_and_no_other(vault: Vault, deployed: Deployed) -> None:
    deployed.set("kubernetes", host="https://kubernetes.default.svc")
    assert deployed.apply(vault.url, vault.root).returncode == 0
    vault.store.accounts |= {"of-mine": ("my-service", "my-service"), "of-another": ("my-service", "default")}
    pod = hvac.Client(vault.url)
    assert pod.auth.kubernetes.login("my-service", "of-mine")["auth"]["policies"] == ["my-service"]
    with pytest.raises(hvac.exceptions.Forbidden):
        pod.auth.kubernetes.login("my-service", "of-another")


def test_roles_of_the_database_may_use_what_migrations_make_later(deployed: Deployed, postgres: Postgres) -> None:
    applied_sql(deployed, postgres, url := postgres.create_database())
    applied_sql(deployed, postgres, url)
    with psycopg.connect(url) as connection:
        connection.execute("CREATE ROLE app_user LOGIN IN ROLE my_service_app")
        connection.execute("SET ROLE my_service_owner; CREATE TABLE later (id int)")
    with psycopg.connect(url, user="app_user") as connection:
        connection.execute("INSERT INTO later VALUES (1)")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("CREATE TABLE another (id int)")
    with psycopg.connect(url, user="vault") as connection:
        connection.execute("CREATE ROLE made IN ROLE my_service_app; DROP ROLE made")
        connection.rollback()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("DROP ROLE app_user")


@pytest.mark.parametrize(
    "mistake", ["no address", "no token", "nobody", "a wrong token", "sealed", "broken TOML", "no policy"]
)
def test_a_mistake_is_one_line_without_a_secret(vault: Vault, deployed: Deployed, mistake: str) -> None:
    url, token = vault.url, vault.root
    expected = {
        "no address": "set VAULT_ADDR and VAULT_TOKEN: an administrator's token, not the service's",
        "no token": "set VAULT_ADDR and VAULT_TOKEN: an administrator's token, not the service's",
        "nobody": "http://127.0.0.1:{port} does not answer (ConnectionError)",
        "a wrong token": "audit: the token may not do this (403)",
        "sealed": f"{url} is sealed, or down (503)",
        "broken TOML": "vault.toml: Expected ']' at the end of a table declaration (at line 1, column 8)",
        "no policy": "vault.toml: [policy] name is missing ('policy')",
    }
    port = free_port()
    match mistake:
        case "no address":
            url = ""
        case "no token":
            token = ""
        case "nobody":
            url = f"http://127.0.0.1:{port}"
        case "a wrong token":
            token = "hvs.not-an-administrators"
        case "sealed":
            vault.state = "sealed"
        case "no policy":
            (deployed.folder / "vault.toml").write_text("[kv]\nmount = 'secret'\n")
        case _:
            (deployed.folder / "vault.toml").write_text("[broken\n")
    done = deployed.apply(url, token)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"apply: {expected[mistake].format(port=port)}\n"
    assert not vault.client().read("sys/policies/acl/my-service") if vault.state == "active" else True


def test_a_part_that_is_refused_does_not_keep_the_others_from_being_made(
    vault: Vault, deployed: Deployed, postgres: Postgres
) -> None:
    vault.store.mounts["secret/"] = {"type": "kv", "options": {"version": "1"}, "config": {}}
    wrong = f"postgresql://{{{{username}}}}:{{{{password}}}}@127.0.0.1:{free_port()}/orders"
    deployed.set("database", connection_url=wrong)
    done = deployed.apply(vault.url, vault.root, {"VAULT_DATABASE_PASSWORD": "a-planted-password"})
    assert done.returncode == 1
    kv, database = done.stderr.splitlines()
    assert kv == "apply: kv: sys/mounts/secret: there is another kv; name a new path in vault.toml"
    assert database.startswith("apply: database: error creating database object: error verifying connection")
    assert f"{ROLE}: made" in done.stdout
    assert "a-planted-password" not in done.stdout + done.stderr
