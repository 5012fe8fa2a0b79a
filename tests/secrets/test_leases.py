"""What Vault lends is renewed in time, replaced when renewal ends, and asked for no more often than needed."""

from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.projects import Project
from tests.sabotage import Body, Sabotage, Value
from tests.secrets.conftest import Side, deploy
from tests.secrets.driver import Client, client
from tests.servers.nginx import Nginx
from tests.servers.process import free_port
from tests.servers.vault import Reviewer, Space
from tests.vault.conftest import SLUG

pytestmark = pytest.mark.servers
ROLE = f"auth/approle/role/{SLUG}"
LOGIN, RENEW, LOOKUP, CREDS = "approle/login", "token/renew-self", "token/lookup-self", "database/creds"
URL = "postgresql://db.acme.test:5432/orders?sslmode=verify-full"


@pytest.fixture
def side(vault: Space, project: Project, database_url: str, tmp_path: Path) -> Side:
    """Tokens for 1,200 s and at most an hour, logins of the database for 3,600 s and at most 9,000."""
    times = {"token_ttl": 1200, "token_max_ttl": 3600, "default_ttl": 3600, "max_ttl": 9000}
    made = deploy(vault, project, tmp_path, database_url, **times)
    made.write(database_url=f"{URL}\n", api_key="of-version-1 \r\n", PORT=8000, host=None, log_level="")
    return made


def user(said_values: dict[str, str]) -> str:
    return urlsplit(said_values["database_url"]).username or ""


def renews_in_time(one: Client) -> None:
    """A lease is renewed when between 60 % and two thirds are over, and only then."""
    first = one.read()
    assert (first.error, first.values["api_key"], first.values["port"]) == ("", "of-version-1", "8000")
    assert first.values.keys() == {"database_url", "api_key", "port"}
    assert first.values["database_url"].endswith("@db.acme.test:5432/orders?sslmode=verify-full")
    assert 54 <= first.look <= 66
    assert one.read(700).leases["token"] == [500, 1200]
    assert one.asked(RENEW) == 0
    assert one.read(101).leases["token"] == [1200, 1200]
    assert (one.asked(RENEW), one.asked(LOGIN), one.asked(CREDS)) == (1, 1, 1)
    one.side.vault.client().write_data(ROLE, data={"token_ttl": 30})
    assert 18 <= one.read(5000).look <= 20  # earlier than usual, as it is due then


def replaces_what_ends(one: Client) -> None:
    """Near its max TTL a token is replaced, and with it what it has lent; the old one is not waited for."""
    first, admin = one.read(), one.side.vault.client()
    assert first.leases["token"] == [1200, 1200]
    admin.write_data(ROLE, data={"token_ttl": 1000, "token_max_ttl": 1000})
    later = one.read(801)
    assert (one.asked(LOGIN), one.asked(RENEW), user(later.values)) == (1, 1, user(first.values))
    assert 900 <= later.leases["token"][0] <= 1000  # all that its max TTL leaves of it
    admin.write_data(ROLE, data={"token_ttl": 400, "token_max_ttl": 400})
    later = one.read(later.leases["token"][0] * 0.9)
    assert (one.asked(LOGIN), one.asked(CREDS)) == (2, 2)
    assert user(later.values) != user(first.values)
    assert later.leases["token"] == [400, 400]


def survives_an_early_end(one: Client) -> None:
    """A token that somebody revoked is noticed at the next look; one that may not do something is not replaced."""
    first, admin = one.read(), one.side.vault.client()
    admin.write_data("sys/leases/revoke-prefix/auth/approle/login", data={"sync": True})
    later = one.read(60)
    assert (later.error, one.asked(LOGIN), user(later.values) != user(first.values)) == ("", 2, True)
    admin.sys.create_or_update_acl_policy(SLUG, 'path "auth/token/*" { capabilities = ["read"] }')
    assert one.read(60).error == f"ConfigurationError: Vault: secret/metadata/{SLUG}: Forbidden"
    assert one.asked(LOGIN) == 2


def looks_for_versions(one: Client) -> None:
    """The values are read when there is a new version, and stay when it was deleted."""
    one.read()
    for _ in range(3):
        one.read(60)
    assert (one.asked("secret/metadata"), one.asked("secret/data")) == (4, 1)
    one.side.write(database_url=URL, api_key="of-version-2")
    assert one.read(60).values["api_key"] == "of-version-2"
    kv = one.side.vault.client().secrets.kv.v2
    kv.delete_latest_version_of_secret(path=SLUG, mount_point="secret")
    assert one.read(60).values["api_key"] == "of-version-2"
    one.side.write(database_url=URL, api_key="of-version-3")
    kv.delete_latest_version_of_secret(path=SLUG, mount_point="secret")
    assert one.read(60).error == f"ConfigurationError: Vault: secret/data/{SLUG}: InvalidPath"


def outlives_an_outage(one: Client) -> None:
    """What ended while Vault was away is lent anew when it is back."""
    first = one.read()
    one.side.vault.network.stop()
    assert one.read(5000).error == "SourceUnavailable: Vault: auth/approle/login: ConnectionError"
    one.side.vault.network.start()
    later = one.read(60)
    assert (later.error, one.asked(LOGIN)) == ("", 2)
    assert (later.leases["token"], later.leases["database"]) == ([1200, 1200], [3600, 3600])
    assert user(later.values) != user(first.values)


def ignores_clocks(one: Client) -> None:
    """What it lends for as long as the server says, and not until when."""
    assert one.read().leases["token"] == [1200, 1200]
    assert one.read(801).leases["token"] == [1200, 1200]
    assert (one.asked(LOGIN), one.asked(RENEW)) == (1, 1)


Check = Callable[[Client], None]
CHECKS: list[Check] = [
    renews_in_time,
    replaces_what_ends,
    survives_an_early_end,
    looks_for_versions,
    outlives_an_outage,
]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_a_client_with_an_injected_clock(project: Project, side: Side, check: Check) -> None:
    with client(project, side) as one:
        check(one)


@pytest.mark.parametrize("hours", [-24, 24])
def test_a_machine_whose_clock_is_a_day_off(project: Project, side: Side, hours: int) -> None:
    with client(project, side, SKEW=str(hours * 3600)) as one:
        ignores_clocks(one)


# By the time that the server says, and not by how long.
BY_TIME = Body(
    "secrets:Vault._set_lease",
    """
    import time
    from datetime import datetime
    if name == "token":
        ends = self.client.auth.token.lookup_self()["data"]["expire_time"]
        seconds = float(round(datetime.fromisoformat(ends).timestamp() - time.time()))
    original(name, seconds, required=required, duration=duration)
    """,
)


@pytest.mark.sabotage
def test_a_client_that_believes_clocks_fails_only_where_they_differ(
    project: Project, side: Side, tmp_path: Path
) -> None:
    sick = project.variant(tmp_path / "sick", BY_TIME)
    with client(sick, side) as one:
        ignores_clocks(one)
    with client(sick, side, SKEW=str(24 * 3600)) as one, pytest.raises((AssertionError, ValueError)):
        ignores_clocks(one)


SABOTAGES: list[tuple[Check, Sabotage]] = [
    (
        renews_in_time,  # too late
        Body(
            "secrets:Vault._set_lease",
            """
            original(name, seconds, required=required, duration=duration)
            self.due[name] = self.clock() + seconds * 3 / 2
            """,
        ),
    ),
    (
        renews_in_time,
        Body("secrets:Vault.read", "return Snapshot(original().values, POLL_SECONDS)"),
    ),  # too late to look
    (
        replaces_what_ends,
        Body("secrets:Vault._renew", "return original(name, path, call, *given) or name in self.leases"),
    ),
    (
        survives_an_early_end,
        Body("secrets:Vault._log_in", "kept = self.lease_id\noriginal()\nself.lease_id = kept"),
    ),
    (survives_an_early_end, Body("secrets:Vault._token_works", "return True")),  # it is not noticed
    (survives_an_early_end, Body("secrets:Vault._token_works", "return False")),  # replaced in vain
    (looks_for_versions, Body("secrets:Vault._refresh", "self.version = 0\noriginal()")),  # read each time
    (looks_for_versions, Body("secrets:Vault._refresh", "if not self.version:\n    original()")),  # read once
    (
        outlives_an_outage,
        Body(
            "secrets:Vault._log_in",
            """
            try:
                original()
            except SourceUnavailable as error:
                raise ConfigurationError(*error.args) from None
            """,
        ),
    ),
]


@pytest.mark.sabotage
@pytest.mark.parametrize(("check", "sabotage"), SABOTAGES)
def test_a_sabotaged_client_fails_its_proof(
    project: Project, side: Side, tmp_path: Path, check: Check, sabotage: Sabotage
) -> None:
    sick = project.variant(tmp_path / "sick", sabotage)
    with client(sick, side) as one, pytest.raises((AssertionError, ValueError, KeyError)):
        check(one)


# --- logging in -----------------------------------------------------------------------------------------------------


def test_a_wrapped_secret_id_is_unwrapped_once_and_a_used_one_is_an_alarm(
    project: Project, side: Side, tmp_path: Path
) -> None:
    file = tmp_path / "secret-id"
    file.write_text(side.secret_id(wrap_ttl="60s"))
    with client(project, side, VAULT_SECRET_ID_WRAPPED="true") as one:
        assert one.read().error == ""
        assert one.read(5000).error == ""
        assert (one.asked("sys/wrapping/unwrap"), one.asked(LOGIN)) == (1, 2)  # the second login needs it again
        stolen = side.secret_id(wrap_ttl="60s")
        side.vault.client(stolen).sys.unwrap()
        file.write_text(stolen)
        said = one.read(5000)
        assert said.error.startswith("ConfigurationError: VAULT_SECRET_ID_FILE: its wrapping token is used up")
        assert "vault write -wrap-ttl=5m -f auth/approle/role/ROLE/secret-id" in said.error
        assert "ALARM" in said.error
        assert stolen not in said.error
        file.write_text(side.secret_id(wrap_ttl="120s"))
        assert one.read(60).error == ""


def test_a_pod_logs_in_by_a_token_that_it_reads_anew(project: Project, side: Side, tmp_path: Path) -> None:
    (tmp_path / "cluster").mkdir()
    file = tmp_path / "jwt"
    env = {"VAULT_AUTH_METHOD": "kubernetes", "VAULT_ROLE": SLUG, "VAULT_JWT_FILE": str(file)}
    with Reviewer(tmp_path / "cluster") as cluster, client(project, side, **env) as one:
        side.deployed.set("kubernetes", host=cluster.url, ca_file=str(cluster.ca))
        assert side.deployed.apply(side.vault.env, side.vault.root).returncode == 0
        assert one.read().error == f"ConfigurationError: VAULT_JWT_FILE: {file}: FileNotFoundError"
        for _ in range(2):
            cluster.accounts.clear()
            file.write_text(cluster.issue(SLUG, SLUG) + "\n")
            assert one.read(5000).error == ""
        assert one.asked("kubernetes/login") == 2
        cluster.accounts.clear()
        assert one.read(5000).error == "ConfigurationError: Vault: auth/kubernetes/login: Forbidden"


def test_a_developers_token_is_used_as_it_is(project: Project, side: Side) -> None:
    made = side.vault.client().auth.token.create(policies=[SLUG], ttl="20m", no_default_policy=True)
    env = {"VAULT_AUTH_METHOD": "token", "VAULT_TOKEN": made["auth"]["client_token"]}
    with client(project, side, **env) as one:
        assert 1190 <= one.read().leases["token"][0] <= 1200
        assert 1190 <= one.read(801).leases["token"][0] <= 1200
        assert (one.asked(LOOKUP), one.asked(RENEW)) == (1, 1)
        side.vault.client().write_data("auth/token/revoke", data={"token": env["VAULT_TOKEN"]})
        assert one.read(5000).error == "ConfigurationError: Vault: auth/token/lookup-self: Forbidden"
    with client(project, side, **env | {"VAULT_ADDR": f"http://127.0.0.1:{free_port()}"}) as nobody:
        for _ in range(3):
            assert nobody.read().error == "SourceUnavailable: Vault: auth/token/lookup-self: ConnectionError"
    with client(project, side, **env | {"VAULT_TOKEN": side.vault.root}) as endless:
        assert endless.read().leases.keys() == {"database"}


# --- faults ---------------------------------------------------------------------------------------------------------

GATEWAY = """
server {
    listen ADDRESS;
    root HOME;
    location / { proxy_pass http://127.0.0.1:PORT; }
    location /v1/secret/metadata/ {
        CODES
        proxy_pass http://127.0.0.1:PORT;
    }
}
"""


def test_each_answer_is_taken_for_what_it_is_and_costs_no_token(project: Project, side: Side, tmp_path: Path) -> None:
    """Through a gateway that answers itself as long as a file says so: with a status, or with a page for a person."""
    expected = {
        429: "SourceUnavailable: RateLimitExceeded",
        500: "SourceUnavailable: InternalServerError",
        502: "SourceUnavailable: BadGateway",
        504: "SourceUnavailable: UnexpectedError",
        200: "SourceUnavailable: TypeError",
        400: "ConfigurationError: InvalidRequest",
        401: "ConfigurationError: Unauthorized",
        403: "ConfigurationError: Forbidden",
        404: "ConfigurationError: InvalidPath",
    }
    codes = "\n".join(f"if (-f $document_root/{code}) {{ return {code} '<html>'; }}" for code in expected)
    found = {}
    server = Nginx(GATEWAY.replace("CODES", codes).replace("PORT", str(side.vault.network.port)))
    with server as gateway, client(project, side, VAULT_ADDR=gateway.url) as one:
        assert one.read().error == ""
        for code in expected:
            (gateway.home / str(code)).touch()
            found[code] = one.read(1).error.replace(f"Vault: secret/metadata/{SLUG}: ", "")
            (gateway.home / str(code)).unlink()
        assert found == expected
        assert one.read(1).error == ""
        assert (one.asked(LOGIN), one.asked(CREDS)) == (1, 1)


def test_each_fault_has_its_answer_and_ends_with_it(project: Project, side: Side, tmp_path: Path) -> None:
    hasty = project.variant(tmp_path / "hasty", Value("secrets:TIMEOUT", "(2, 2)"))
    vault, network = side.vault, side.vault.network

    def told(one: Client) -> str:
        return one.read(1).error.replace(f"Vault: secret/metadata/{SLUG}: ", "")

    with client(hasty, side) as one:
        assert one.read().error == ""
        network.pause()
        assert told(one) == "SourceUnavailable: ReadTimeout"
        network.resume()
        network.cutting = True
        assert told(one) == "SourceUnavailable: ConnectionError"
        network.cutting = False
        network.stop()
        assert told(one) == "SourceUnavailable: ConnectionError"
        network.start()
        vault.bao.seal()
        try:
            assert told(one) == "SourceUnavailable: VaultDown"
        finally:
            vault.bao.unseal()
        assert told(one) == ""
        assert (one.asked(LOGIN), one.asked(CREDS)) == (1, 1)  # none of it cost the token
