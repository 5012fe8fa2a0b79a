"""What Vault lends is renewed in time, replaced when renewal ends, and asked for no more often than needed."""

from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.projects import Edit, Project
from tests.secrets.conftest import VAULT, Side, deploy
from tests.secrets.driver import Client, client
from tests.servers.postgres import Postgres
from tests.servers.vault import HANG, Vault
from tests.vault.conftest import SLUG

pytestmark = pytest.mark.servers
ROLE = f"auth/approle/role/{SLUG}"
LOGIN, RENEW, LOOKUP, CREDS = "approle/login", "token/renew-self", "token/lookup-self", "database/creds"
URL = "postgresql://db.acme.test:5432/orders?sslmode=verify-full"


@pytest.fixture(scope="module")
def database(postgres: Postgres) -> str:
    return postgres.create_database()


@pytest.fixture
def side(vault: Vault, project: Project, postgres: Postgres, database: str, tmp_path: Path) -> Side:
    """Tokens for 1,200 s and at most an hour, logins of the database for 3,600 s and at most 9,000."""
    times = {"token_ttl": 1200, "token_max_ttl": 3600, "default_ttl": 3600, "max_ttl": 9000}
    made = deploy(vault, project, tmp_path, (postgres, database), **times)
    made.write(database_url=URL, api_key="of-version-1", PORT=8000)
    return made


def user(said_values: dict[str, str]) -> str:
    return urlsplit(said_values["database_url"]).username or ""


def renews_in_time(one: Client) -> None:
    """A lease is renewed when between 60 % and two thirds are over, and only then."""
    first = one.read()
    assert (first.error, first.values["api_key"], first.values["port"]) == ("", "of-version-1", "8000")
    assert first.values["database_url"].endswith("@db.acme.test:5432/orders?sslmode=verify-full")
    assert 54 <= first.look <= 66
    assert one.read(700).leases["token"] == [500, 1200]
    assert one.asked(RENEW) == 0
    assert one.read(101).leases["token"] == [1200, 1200]
    assert (one.asked(RENEW), one.asked(LOGIN), one.asked(CREDS)) == (1, 1, 1)
    assert 0 < one.read(700).look <= 100  # earlier than the usual 60 s, if it is due then


def replaces_what_ends(one: Client) -> None:
    """Near its max TTL a token is replaced, and with it what it has lent; the old one is not waited for."""
    first = one.read()
    for _ in range(3):
        one.read(801)
    assert (one.asked(LOGIN), one.asked(RENEW)) == (1, 3)
    later = one.read(801)
    assert (one.asked(LOGIN), one.asked(CREDS)) == (2, 2)
    assert user(later.values) != user(first.values)
    assert later.leases["token"] == [1200, 1200]


def survives_an_early_end(one: Client) -> None:
    """A token that somebody revoked is noticed at the next look; one that may not do something is not replaced."""
    first = one.read()
    one.side.vault.store.revoke(next(t for t in one.side.vault.store.tokens.values() if SLUG in t.policies))
    later = one.read(60)
    assert (later.error, one.asked(LOGIN), user(later.values) != user(first.values)) == ("", 2, True)
    one.side.vault.client().sys.create_or_update_acl_policy(SLUG, 'path "auth/token/*" { capabilities = ["read"] }')
    assert one.read(60).error == f"ConfigurationError: Vault: secret/metadata/{SLUG}: Forbidden"
    assert one.asked(LOGIN) == 2


def looks_for_versions(one: Client) -> None:
    """The values are read when there is a new version, and stay when it was deleted."""
    one.read()
    for _ in range(3):
        one.read(60)
    assert (one.asked("secret/metadata"), one.asked("secret/data")) == (4, 2)  # one of them wrote it
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
    one.side.vault.stop()
    assert one.read(5000).error == "SourceUnavailable: Vault: auth/approle/login: ConnectionError"
    one.side.vault.start()
    later = one.read(60)
    assert (later.error, one.asked(LOGIN)) == ("", 2)
    assert (later.leases["token"], later.leases["database"]) == ([1200, 1200], [3600, 3600])
    assert user(later.values) != user(first.values)


def ignores_clocks(one: Client) -> None:
    """A server whose clock is a day off lends for as long."""
    for hours in (-24, 24):
        one.side.vault.clock.skew = hours * 3600
        assert one.read(0 if hours < 0 else 801).leases["token"] == [1200, 1200]
    assert (one.asked(LOGIN), one.asked(RENEW)) == (1, 1)


Check = Callable[[Client], None]
CHECKS: list[Check] = [
    renews_in_time,
    replaces_what_ends,
    survives_an_early_end,
    looks_for_versions,
    outlives_an_outage,
    ignores_clocks,
]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_a_client_with_an_injected_clock(project: Project, side: Side, check: Check) -> None:
    with client(project, side) as one:
        check(one)


LATE = 'self._lend("token", lent, holds=bool(mine.vault_database_role))'
BY_TIME = (
    'ends = auth.token.lookup_self()["data"]["expire_time"]; import datetime, time; '
    "lent = datetime.datetime.fromisoformat(ends).timestamp() - time.time(); "
)


@pytest.mark.parametrize(
    ("check", "edit"),
    [
        (renews_in_time, Edit(VAULT, "seconds * 2 / 3", "seconds * 3 / 2")),
        (renews_in_time, Edit(VAULT, "min([POLL * random.uniform(0.9, 1.1), *(", "min([POLL, *(0 * ")),
        (replaces_what_ends, Edit(VAULT, "if seconds < lease.seconds / 2:", "if False:")),
        (survives_an_early_end, Edit(VAULT, "if new or self._token_works():", "if True:")),
        (survives_an_early_end, Edit(VAULT, "if new or self._token_works():", "if new:")),
        (looks_for_versions, Edit(VAULT, "if newest != self.version:", "if True:")),
        (looks_for_versions, Edit(VAULT, "if newest != self.version:", "if not self.version:")),
        (survives_an_early_end, Edit(VAULT, '            self.lease_id = ""', "            pass")),
        (outlives_an_outage, Edit(VAULT, 'raise SourceUnavailable(f"Vault:', 'raise ConfigurationError(f"Vault:')),
        (ignores_clocks, Edit(VAULT, LATE, BY_TIME + LATE)),
    ],
)
def test_a_sabotaged_client_fails_its_proof(
    project: Project, side: Side, tmp_path: Path, check: Check, edit: Edit
) -> None:
    sick = project.variant(tmp_path / "sick", edit)
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
        for _ in range(4):
            one.read(801)
        assert (one.asked("sys/wrapping/unwrap"), one.asked(LOGIN)) == (1, 2)  # the second login needs it again
        stolen = side.secret_id(wrap_ttl="60s")
        side.vault.client(stolen).sys.unwrap()
        file.write_text(stolen)
        for _ in range(4):
            said = one.read(801)
        assert said.error.startswith("ConfigurationError: VAULT_SECRET_ID_FILE: ALARM: its wrapping token is used up")
        assert stolen not in said.error
        file.write_text(side.secret_id(wrap_ttl="120s"))
        assert one.read(60).error == ""


def test_a_pod_logs_in_by_a_token_that_it_reads_anew(project: Project, side: Side, tmp_path: Path) -> None:
    side.deployed.set("kubernetes", host="https://kubernetes.default.svc")
    assert side.deployed.apply(side.vault.url, side.vault.root).returncode == 0
    accounts, file = side.vault.store.accounts, tmp_path / "jwt"
    env = {"VAULT_AUTH_METHOD": "kubernetes", "VAULT_ROLE": SLUG, "VAULT_JWT_FILE": str(file)}
    with client(project, side, **env) as one:
        assert one.read().error == f"ConfigurationError: VAULT_JWT_FILE: {file}: FileNotFoundError"
        for name in ("first", "second"):
            accounts.clear()
            accounts[name] = (SLUG, SLUG)
            file.write_text(name + "\n")
            assert one.read(5000).error == ""
        assert one.asked("kubernetes/login") == 2
        accounts.clear()
        assert one.read(5000).error.startswith("ConfigurationError: Vault: auth/kubernetes/login: ")


def test_a_developers_token_is_used_as_it_is(project: Project, side: Side) -> None:
    made = side.vault.client().auth.token.create(policies=[SLUG], ttl="20m", no_default_policy=True)
    env = {"VAULT_AUTH_METHOD": "token", "VAULT_TOKEN": made["auth"]["client_token"]}
    with client(project, side, **env) as one:
        assert 1190 <= one.read().leases["token"][0] <= 1200
        assert 1190 <= one.read(801).leases["token"][0] <= 1200
        assert (one.asked(LOOKUP), one.asked(RENEW)) == (1, 1)
        assert one.read(5000).error == "ConfigurationError: Vault: auth/token/lookup-self: Forbidden"
    with client(project, side, **env | {"VAULT_TOKEN": side.vault.root}) as endless:
        assert endless.read().leases.keys() == {"database"}


# --- faults ---------------------------------------------------------------------------------------------------------


def test_each_fault_has_its_answer_and_ends_with_it(project: Project, side: Side, tmp_path: Path) -> None:
    away = {429: "RateLimitExceeded", 500: "InternalServerError", 502: "BadGateway", 504: "UnexpectedError"}
    refused = {400: "InvalidRequest", 401: "Unauthorized", 403: "Forbidden", 404: "InvalidPath"}
    expected = {**{code: f"SourceUnavailable: {name}" for code, name in away.items()}, 200: "SourceUnavailable: KeyError"}
    expected |= {code: f"ConfigurationError: {name}" for code, name in refused.items()}
    hasty = project.variant(tmp_path / "hasty", Edit(VAULT, "TIMEOUT = (2, 5)", "TIMEOUT = (1, 1)"))
    vault, path, found = side.vault, f"secret/metadata/{SLUG}", {}

    def told(one: Client) -> str:
        return one.read(1).error.replace(f"Vault: {path}: ", "")

    with client(hasty, side) as one:
        assert one.read().error == ""
        for code in expected:
            with vault.fault(path=path, status=code):
                found[code] = told(one)
        assert found == expected
        with vault.fault(path=path, delay=HANG):
            assert told(one) == "SourceUnavailable: ReadTimeout"
            vault.over.set()
        vault.over.clear()
        with vault.fault(path=path, reset=True):
            assert told(one) == "SourceUnavailable: ConnectionError"
        vault.state = "sealed"
        assert told(one) == "SourceUnavailable: VaultDown"
        vault.state = "active"
        assert told(one) == ""
        assert (one.asked(LOGIN), one.asked(CREDS)) == (1, 1)  # none of it cost the token
