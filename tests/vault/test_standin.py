"""The stand-in for Vault does to real hvac what the recorded table says, and time passes in it."""

import socket
import time
from typing import Any

import httpx
import hvac
import psycopg
import pytest
import requests
from hvac import exceptions

from tests.servers.postgres import Postgres
from tests.servers.vault import HANG, Vault
from tests.servers.vault.table import HEALTH, TABLE

pytestmark = pytest.mark.servers
READER = 'path "secret/data/orders" { capabilities = ["read"] }\npath "database/creds/+" { capabilities = ["read"] }'


@pytest.fixture
def reader(vault: Vault) -> hvac.Client:
    """Somebody who may read one secret, logged in by AppRole for an hour, four at most."""
    root = vault.client()
    root.sys.create_or_update_acl_policy("reader", READER)
    root.sys.enable_auth_method("approle")
    role: dict[str, Any] = {"token_policies": ["reader"], "token_ttl": "1h", "token_max_ttl": "4h"}
    root.auth.approle.create_or_update_approle("orders", **role)
    role_id = root.auth.approle.read_role_id("orders")["data"]["role_id"]
    secret_id = root.auth.approle.generate_secret_id("orders")["data"]["secret_id"]
    root.secrets.kv.v2.create_or_update_secret("orders", {"key": "one"}, mount_point="secret")
    client = hvac.Client(url=vault.url, timeout=2)
    client.auth.approle.login(role_id, secret_id)
    return client


def read(client: hvac.Client, path: str = "orders", version: int | None = None) -> Any:
    answer = client.secrets.kv.v2.read_secret_version(path, version, raise_on_deleted_version=True)
    return answer["data"]["data"]


def test_each_row_names_its_page_and_each_health_has_its_status(vault: Vault) -> None:
    assert all(row.page and row.statuses for row in TABLE)
    for state, status in HEALTH.items():
        vault.state = state
        assert httpx.get(f"{vault.url}/v1/sys/health", trust_env=False).status_code == status


def test_a_request_without_a_row_is_noticed() -> None:
    with Vault() as server:
        assert server.client().read("transit/keys/orders") is None
        assert server.unknown == ["GET transit/keys/orders"]


def test_a_token_reads_what_its_policy_names_and_nothing_else(vault: Vault, reader: hvac.Client) -> None:
    assert read(reader) == {"key": "one"}
    with pytest.raises(exceptions.Forbidden):
        read(reader, "others")
    with pytest.raises(exceptions.Forbidden):
        reader.sys.read_acl_policy("reader")
    with pytest.raises(exceptions.InvalidPath):
        read(vault.client(), "others")


def test_a_version_that_was_deleted_or_destroyed_is_not_found_and_says_so(vault: Vault, reader: hvac.Client) -> None:
    kv = vault.client().secrets.kv.v2
    kv.create_or_update_secret("orders", {"key": "two"})
    assert read(reader) == {"key": "two"}
    assert read(reader, version=1) == {"key": "one"}
    kv.delete_latest_version_of_secret("orders")
    with pytest.raises(exceptions.InvalidPath) as found:
        read(reader)
    assert found.value.json["data"]["metadata"]["deletion_time"]
    kv.destroy_secret_versions("orders", [1])
    with pytest.raises(exceptions.InvalidPath) as found:
        read(reader, version=1)
    assert found.value.json["data"]["metadata"]["destroyed"] is True
    metadata = kv.read_secret_metadata("orders")["data"]
    assert (metadata["current_version"], sorted(metadata["versions"])) == (2, ["1", "2"])


def test_a_token_lives_as_long_as_it_is_renewed_and_never_beyond_its_maximum(vault: Vault, reader: hvac.Client) -> None:
    for hours in (1, 2, 3):
        vault.clock.advance(3000)
        renewed = reader.auth.token.renew_self()["auth"]["lease_duration"]
        assert renewed == 3600, hours
    vault.clock.advance(3000)
    answer = reader.auth.token.renew_self()
    assert answer["auth"]["lease_duration"] < 2410
    assert "max_ttl" in answer["warnings"][0]
    assert reader.auth.token.lookup_self()["data"]["ttl"] < 2410
    vault.clock.advance(2500)
    with pytest.raises(exceptions.Forbidden):
        read(reader)


def test_a_secret_id_is_unwrapped_once(vault: Vault, reader: hvac.Client) -> None:
    wrapped = vault.client().auth.approle.generate_secret_id("orders", wrap_ttl="60s")["wrap_info"]["token"]
    client = hvac.Client(url=vault.url, token=wrapped)
    secret_id = client.sys.unwrap()["data"]["secret_id"]
    role_id = vault.client().auth.approle.read_role_id("orders")["data"]["role_id"]
    client.auth.approle.login(role_id, secret_id)
    assert read(client) == {"key": "one"}
    with pytest.raises(exceptions.InvalidRequest, match="wrapping token is not valid"):
        hvac.Client(url=vault.url, token=wrapped).sys.unwrap()
    with pytest.raises(exceptions.InvalidRequest, match="invalid role or secret ID"):
        client.auth.approle.login(role_id, "another")


def test_a_service_account_of_kubernetes_logs_in_to_its_role_only(vault: Vault) -> None:
    root = vault.client()
    root.sys.enable_auth_method("kubernetes")
    root.auth.kubernetes.create_role("orders", ["orders"], ["shop"], ttl=600, policies=["default"])
    vault.store.accounts["jwt-of-orders"] = ("shop", "orders")
    client = hvac.Client(url=vault.url)
    client.auth.kubernetes.login("orders", "jwt-of-orders")
    assert client.lookup_token()["data"]["ttl"] > 590
    with pytest.raises(exceptions.Forbidden):
        client.auth.kubernetes.login("orders", "jwt-of-another")


def test_credentials_are_real_until_their_lease_or_their_token_ends(
    vault: Vault, reader: hvac.Client, postgres: Postgres
) -> None:
    url = postgres.create_database()
    root = vault.client()
    root.sys.enable_secrets_engine("database")
    root.secrets.database.configure(
        "orders", "postgresql-database-plugin", allowed_roles="orders", connection_url=url, verify_connection=True
    )
    create = "CREATE ROLE \"{{name}}\" LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}'"
    root.secrets.database.create_role("orders", "orders", [create], default_ttl="1h", max_ttl="2h")

    def login(answer: Any) -> str:
        with psycopg.connect(url, user=answer["data"]["username"], password=answer["data"]["password"]) as connection:
            return str(connection.info.user)

    first, second = (reader.secrets.database.generate_credentials("orders") for _ in range(2))
    assert login(first) != login(second)
    vault.clock.advance(3000)
    assert reader.sys.renew_lease(first["lease_id"])["lease_duration"] == 3600
    vault.clock.advance(300)
    reader.auth.token.renew_self()
    vault.clock.advance(400)
    assert login(first)
    with pytest.raises(psycopg.OperationalError, match="does not exist"):
        login(second)
    with pytest.raises(exceptions.InvalidRequest):
        reader.sys.renew_lease(second["lease_id"])
    reader.auth.token.revoke_self()
    with pytest.raises(psycopg.OperationalError, match="does not exist"):
        login(first)


def test_another_namespace_is_closed(vault: Vault, reader: hvac.Client) -> None:
    vault.namespace = "shop"
    with pytest.raises(exceptions.Forbidden):
        read(reader)
    assert vault.client().lookup_token()["data"]["policies"] == ["root"]


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ({"status": 429}, exceptions.RateLimitExceeded),
        ({"status": 500}, exceptions.InternalServerError),
        ({"status": 502}, exceptions.BadGateway),
        ({"delay": HANG}, requests.ReadTimeout),
        ({"delay": 5}, requests.ReadTimeout),
        ({"reset": True}, requests.ConnectionError),
    ],
)
def test_a_fault_hurts_the_path_that_it_names(
    vault: Vault, reader: hvac.Client, fault: dict[str, Any], error: type[Exception]
) -> None:
    reader.adapter.timeout = None
    reader.adapter._kwargs["timeout"] = 0.3
    with vault.fault(path="secret/data/", **fault):
        with pytest.raises(error):
            read(reader)
        assert reader.lookup_token()
    assert read(reader) == {"key": "one"}


def test_a_server_that_is_sealed_or_away_comes_back_on_its_port_with_all_it_had(
    vault: Vault, reader: hvac.Client
) -> None:
    vault.state = "sealed"
    with pytest.raises(exceptions.VaultDown):
        read(reader)
    assert reader.sys.read_seal_status()["sealed"] is True
    vault.state = "active"
    vault.stop()
    with pytest.raises(requests.ConnectionError):
        read(reader)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", vault.port))
    vault.start()
    assert read(reader) == {"key": "one"}


def test_a_clock_that_is_off_shows_in_its_times_and_not_in_its_durations(vault: Vault, reader: hvac.Client) -> None:
    def look() -> tuple[int, str]:
        found = reader.lookup_token()["data"]
        return found["ttl"], found["expire_time"]

    (ttl, expires), year = look(), time.strftime("%Y")
    vault.clock.skew = 400 * 86400
    assert look()[0] in (ttl, ttl - 1)
    assert expires.startswith(year)
    assert not look()[1].startswith(year)
