"""A login that somebody took away is replaced at once, and not when its lease or a back-off ends."""

import time
from pathlib import Path

import psycopg
import pytest

from tests.plant import Feature
from tests.projects import Project, Service
from tests.sabotage import Body
from tests.secrets.conftest import ITEMS, Side, deploy, until, users
from tests.servers.process import ServerError
from tests.servers.vault import Space
from tests.service.conftest import migrated
from tests.vault.conftest import SLUG

pytestmark = pytest.mark.servers
CREDS = f"database/creds/{SLUG}"
# What the room `db` does when a server refuses the login of a query.
REFUSED = '''"""Asks for new secrets."""

from fastapi import APIRouter, Request

router = APIRouter(prefix="/refused")


@router.post("/{name}", status_code=204)
async def refused(request: Request, name: str) -> None:
    for _ in range(100):
        request.app.state.platform.secrets.renew(name)
'''


@pytest.fixture(scope="module")
def asking(project: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The service with a feature that says that a value was refused. Do not change it: make a `variant`."""
    return project.variant(tmp_path_factory.mktemp("asking") / "service", Feature("refused", REFUSED))


@pytest.fixture
def side(vault: Space, project: Project, database_url: str, tmp_path: Path) -> Side:
    """Logins for an hour: no lease is due while a test runs."""
    made = deploy(vault, project, tmp_path, database_url)
    made.write(database_url=database_url)
    migrated(project, f"{database_url}?options=-crole%3Dmy_service_owner")
    return made


def refuse(service: Service, name: str = "database_url") -> None:
    assert service.client.post(f"/refused/{name}").status_code == 204


def renews_at_once(service: Service, side: Side, url: str) -> None:
    """One new login for a hundred calls; the next ones come later and later, as they do not help."""
    assert service.client.get(ITEMS).status_code == 200
    (first,) = users(url)
    refuse(service)
    until(lambda: first not in users(url))
    assert side.vault.asked(CREDS) == 2
    begun = time.monotonic()
    while time.monotonic() < begun + 4:
        refuse(service)
        time.sleep(0.1)
    assert 3 <= side.vault.asked(CREDS) <= 5
    assert service.client.get(ITEMS).status_code == 200


def test_a_login_is_replaced_as_soon_as_a_server_refused_it(
    asking: Project, side: Side, database_url: str, tmp_path: Path
) -> None:
    with asking.serve(tmp_path / "run", side.env) as service:
        renews_at_once(service, side, database_url)


SABOTAGES = {
    "no effect": Body("secrets:Store.renew", "pass"),
    "without end": Body("secrets:Store._renewed", "pass"),
    "the login is kept": Body("secrets:Vault.read", "return original()"),
}


@pytest.mark.sabotage
@pytest.mark.parametrize("name", SABOTAGES)
def test_a_sabotaged_store_fails_the_proof(
    asking: Project, side: Side, database_url: str, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.secrets.conftest.SECONDS", 3.0)
    sick = asking.variant(tmp_path / "sick", SABOTAGES[name])
    with sick.serve(tmp_path / "run", side.env) as service, pytest.raises((AssertionError, ServerError)):
        renews_at_once(service, side, database_url)


# --- the whole way: the room `db` renews; a lease that is revoked is in tests/database/test_logins.py -----------------


def drop(url: str) -> None:
    """Without Vault, which believes that the lease is valid."""
    with psycopg.connect(url, autocommit=True) as connection:
        for name in users(url):
            connection.execute(f'DROP OWNED BY "{name}"; DROP ROLE "{name}"'.encode())


def recovers(service: Service) -> None:
    """Requests get 503 for a few seconds, where the lease had an hour to go and the back-off a minute."""
    begun, seen = time.monotonic(), set()
    while (status := service.client.post(ITEMS, json={"name": "again"}).status_code) != 201:
        seen.add(status)
        assert time.monotonic() < begun + 8
        time.sleep(0.1)
    assert seen <= {503}
    until(lambda: service.client.get("/readyz").status_code == 200)


def outlives_a_drop(service: Service, side: Side, url: str) -> None:
    """While Vault is there, and while it is sealed."""
    assert service.client.get(ITEMS).status_code == 200
    drop(url)
    recovers(service)
    side.vault.bao.seal()
    try:
        drop(url)
        said = side.vault.network.said
        until(lambda: service.client.get(ITEMS).status_code == 503 and side.vault.network.said > said + 4)
    finally:
        side.vault.bao.unseal()
    recovers(service)
    assert "Traceback" not in service.log


def test_a_login_that_is_taken_away_is_replaced_within_seconds(
    project: Project, side: Side, database_url: str, tmp_path: Path
) -> None:
    with project.serve(tmp_path / "run", side.env) as service:
        outlives_a_drop(service, side, database_url)


WAITS = "self.wait_seconds = MAX_RETRY_SECONDS\nself.renewable = time.monotonic() + MAX_RETRY_SECONDS"


@pytest.mark.sabotage
def test_a_store_that_waits_out_its_back_off_is_noticed(
    project: Project, side: Side, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.secrets.conftest.SECONDS", 10.0)
    sick = project.variant(tmp_path / "sick", Body("secrets:Store._back_off", WAITS))
    with sick.serve(tmp_path / "run", side.env) as service, pytest.raises((AssertionError, ServerError)):
        outlives_a_drop(service, side, database_url)
