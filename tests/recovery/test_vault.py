"""A lost Vault comes back from its snapshot by the commands of the plan; until then the service can start without."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.projects import Project
from tests.recovery.plan import Steps, after, runs, value
from tests.sabotage import Value
from tests.secrets.conftest import ITEMS, Side, deploy, until
from tests.servers.process import Process, ServerError, free_port
from tests.servers.proxy import Proxy
from tests.servers.vault import OpenBao, Space
from tests.service.conftest import migrated
from tests.vault.conftest import SLUG

pytestmark = pytest.mark.servers
SNAPSHOTS = 'path "sys/storage/raft/snapshot" { capabilities = ["read"] }'
# The gate does not wait as long between two looks at Vault.
QUICK = (Value("secrets:POLL_SECONDS", "0.2"), Value("secrets:MAX_RETRY_SECONDS", "0.3"))
CURRENT = "secrets of Vault are current: 1"


@pytest.fixture
def side(project: Project, tmp_path: Path) -> Iterator[Side]:
    """A Vault of its own, with the address of the service's database in it."""
    with OpenBao() as server, Proxy(server.port) as network:
        space = Space(server, "", network, 0)
        space.client().write_data("sys/mounts/secret", data={"type": "kv", "options": {"version": "2"}})
        space.wait_until(space._has_secrets)
        made = deploy(space, project, tmp_path)
        url = f"sqlite:///{tmp_path}/service.db"
        made.write(database_url=url)
        migrated(project, url)
        yield made


def saved(side: Side, steps: Steps) -> None:
    """Take the snapshot, as a token that may do nothing else."""
    admin = side.vault.client()
    admin.sys.create_or_update_acl_policy("snapshots", SNAPSHOTS)
    token = admin.auth.token.create(policies=["snapshots"], no_default_policy=True)["auth"]["client_token"]
    steps.run(VAULT_ADDR=side.vault.bao.url, VAULT_TOKEN=token)
    del steps.env["VAULT_TOKEN"]


def restored(side: Side, steps: Steps) -> str:
    """Restore it into the empty server, and unseal that with the old key: what the last command says."""
    bao = side.vault.bao
    key, token = "Key .will be hidden.", "Token .will be hidden."
    steps.answer(
        (key, after("Unseal Key 1")), (token, lambda shown: active(bao) and after("Initial Root Token")(shown))
    )
    shown = steps.answer((key, value(bao.key)))
    assert [line.split() for line in shown.splitlines() if line.startswith("Sealed")][-1] == ["Sealed", "false"]
    return steps.answer((token, lambda shown: active(bao) and bao.root))


def active(bao: OpenBao) -> str:
    """Wait, as somebody who types does: an unsealed server needs a moment until it serves."""
    until(lambda: httpx.get(f"{bao.url}/v1/sys/health", trust_env=False).status_code == 200)
    return "active"


def serves(service: httpx.Client) -> bool:
    return (service.get(ITEMS).status_code, service.post(ITEMS, json={"name": "kept"}).status_code) == (200, 201)


@runs("Vault lost")
def test_a_lost_vault_comes_back_from_its_snapshot_and_the_service_reads_its_secret(
    project: Project, side: Side, steps: Steps, tmp_path: Path
) -> None:
    bao, quick = side.vault.bao, project.variant(tmp_path / "quick", *QUICK)
    with quick.serve(tmp_path / "run", side.env) as service:
        assert service.client.get("/readyz").json()["parts"]["secrets"]["evidence"] == CURRENT
        saved(side, steps)
        bao.lose()
        assert httpx.get(f"{bao.url}/v1/sys/seal-status", trust_env=False).json()["initialized"] is False
        until(lambda: "secrets are not renewed" in service.log)
        assert serves(service.client)
        assert restored(side, steps).splitlines()[-1] == "nothing to change"
        until(lambda: "secrets are current again" in service.log)
        assert service.client.get("/readyz").json()["parts"]["secrets"]["evidence"] == CURRENT
        assert serves(service.client)
    with quick.serve(tmp_path / "again", side.env) as another:
        assert serves(another.client)
    side.write(database_url="sqlite:///elsewhere.db")  # it takes new versions, too
    found = side.vault.client().secrets.kv.v2.read_secret_version(SLUG, raise_on_deleted_version=True)
    assert found["data"]["metadata"]["version"] == 2


@pytest.mark.sabotage
@runs("Vault lost")
def test_a_snapshot_that_is_not_forced_into_the_new_server_is_noticed(side: Side, steps: Steps) -> None:
    steps.spoil("restore -force", "restore")
    saved(side, steps)
    side.vault.bao.lose()
    with pytest.raises(AssertionError, match="a different set of unseal keys"):
        restored(side, steps)
    steps.left.clear()


def starts_from_files(side: Side, steps: Steps, tmp_path: Path) -> None:
    """While Vault is away, with all of its settings still there."""
    side.vault.bao.kill()
    steps.env |= {**side.env, "FOLDER": str(tmp_path / "glass"), "PORT": str(free_port())}
    (tmp_path / "glass").mkdir()
    (tmp_path / "glass" / "database_url").write_text(f"sqlite:///{tmp_path}/service.db\n")
    process = Process(steps.next(), log=tmp_path / "glass.log", cwd=steps.project.root, env=steps.environment())
    with httpx.Client(base_url=f"http://127.0.0.1:{steps.env['PORT']}", timeout=10, trust_env=False) as client:

        def ready() -> bool:
            try:
                return client.get("/readyz").status_code == 200
            except httpx.TransportError:
                return False

        try:
            process.wait_until(ready, 30)
            assert serves(client)
            evidence = client.get("/readyz").json()["parts"]["secrets"]["evidence"]
        finally:
            process.stop()
    assert evidence == "secrets of Files are current: 1"


@runs("Break the glass")
def test_without_vault_the_service_starts_from_files(side: Side, steps: Steps, tmp_path: Path) -> None:
    starts_from_files(side, steps, tmp_path)


@pytest.mark.sabotage
@runs("Break the glass")
def test_a_start_that_still_asks_vault_is_noticed(side: Side, steps: Steps, tmp_path: Path) -> None:
    steps.spoil("SECRETS_BACKEND=files ", "")
    Value("secrets:STARTUP_SECONDS", "1.5").apply(steps.project.root)
    with pytest.raises(ServerError, match="gave up after"):
        starts_from_files(side, steps, tmp_path)
