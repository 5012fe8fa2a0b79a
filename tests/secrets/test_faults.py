"""What a running service does when its secrets cannot be had: at the start, and later. Each fault has one answer."""

import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.contract import LEASES
from tests.plant import Feature
from tests.projects import Project, Service
from tests.sabotage import Body, Value
from tests.secrets.conftest import ITEMS, SECRET, Side, deploy, swap, until
from tests.servers.process import ServerError, free_port
from tests.servers.vault import Space
from tests.service.conftest import migrated
from tests.vault.conftest import SLUG

pytestmark = pytest.mark.servers
LEASE = r'^(secrets_\w+)\{[^}]*lease="token"[^}]*\} (\S+)$'
HASTY = (
    Value("secrets:STARTUP_SECONDS", "1.5"),
    Value("secrets:MAX_RETRY_SECONDS", "0.3"),
    Value("secrets:LISTENER_RETRY_SECONDS", "0.2"),
    Value("secrets:REFRESH_SECONDS", "0.1"),
    Value("secrets:POLL_SECONDS", "0.2"),
    Value("secrets:TIMEOUT", "(2, 2)"),
)
# A feature that is told of a secret, and shows what it was told; the first telling fails.
LISTENER = '''"""Told of a new key of an API."""

from fastapi import APIRouter, Request

router = APIRouter(prefix="/told")
told: list[str] = []


@router.get("")
async def show(request: Request) -> list[str]:
    secrets = request.app.state.platform.secrets
    if not told:
        told.append("listening")
        secrets.on_change("api_key", hear)
    return told


async def hear(value: str) -> None:
    told.append(value)
    if told.count(value) == 1:
        raise ValueError(value)
'''


@pytest.fixture(scope="module")
def hasty(project: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The service with short waits and a feature that listens. Do not change it: make a `variant`."""
    return project.variant(tmp_path_factory.mktemp("hasty") / "service", *HASTY, Feature("told", LISTENER))


@pytest.fixture
def side(vault: Space, project: Project, tmp_path: Path) -> Side:
    made = deploy(vault, project, tmp_path)
    made.write(api_key="first", database_url=f"sqlite:///{tmp_path}/x.db")
    return made


# --- the start ------------------------------------------------------------------------------------------------------


def ends(project: Project, env: dict[str, str]) -> tuple[int, str]:
    """Exit code and the last line of what a start says, in which there is no secret."""
    done = project.quick("serve", env={"PORT": "0", **env})
    assert SECRET not in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.returncode, done.stderr.splitlines()[-1]


def test_a_vault_that_says_no_ends_the_start_at_once(hasty: Project, side: Side) -> None:
    wrong = {
        "VAULT_ROLE_ID": ("0000", "auth/approle/login: InvalidRequest"),
        "VAULT_SECRET_PATH": ("others", "secret/metadata/others: Forbidden"),
        "VAULT_KV_MOUNT": ("nowhere", "nowhere/metadata/my-service: Forbidden"),
    }
    for name, (value, reason) in wrong.items():
        assert ends(hasty, {**side.env, name: value}) == (78, f"configuration refused: Vault: {reason}")
    side.vault.client().secrets.kv.v2.delete_latest_version_of_secret(path=SLUG, mount_point="secret")
    said = ends(hasty, side.env)
    assert said == (78, "configuration refused: Vault: secret/data/my-service: InvalidPath")
    assert side.vault.asked("secret/data") == 1


AWAY = "ConnectionError"
FAULTS = ("sealed", "hung", "cut", "refused", "busy")


@pytest.mark.parametrize("fault", FAULTS)
def test_a_vault_that_is_away_is_tried_for_a_while(hasty: Project, side: Side, fault: str) -> None:
    with faulty(side, fault) as error:
        code, line = ends(hasty, side.env)
    assert (code, line) == (1, f"configuration unavailable: Vault: auth/approle/login: {error}; gave up after 1.5 s")


def test_a_vault_that_comes_back_in_time_lets_the_service_start(project: Project, side: Side, tmp_path: Path) -> None:
    bao, network = side.vault.bao, side.vault.network
    bao.seal()
    before = network.said

    def unseal() -> None:
        until(lambda: network.said > before)
        bao.unseal()

    helper = threading.Thread(target=unseal)
    helper.start()
    with project.serve(tmp_path / "run", side.env) as service:
        helper.join()
        assert service.log.count("configuration unavailable") == 1
        assert side.vault.asked("approle/login") == 1  # those of before met a server that was sealed


@contextmanager
def faulty(side: Side, fault: str) -> Iterator[str]:
    """Break the server, or the network before it; gives the error that hvac then has."""
    bao, network = side.vault.bao, side.vault.network
    begin, end, error = {
        "sealed": (bao.seal, bao.unseal, "VaultDown"),
        "hung": (network.pause, network.resume, "ReadTimeout"),
        "cut": (lambda: setattr(network, "cutting", True), lambda: setattr(network, "cutting", False), AWAY),
        "refused": (network.stop, network.start, AWAY),
        "busy": (side.vault.throttle, side.vault.relax, "RateLimitExceeded"),
    }[fault]
    begin()
    try:
        yield error
    finally:
        end()


def test_what_vault_lacks_is_said_by_name(project: Project) -> None:
    done = project.quick("serve", env={"SECRETS_BACKEND": "vault", "VAULT_AUTH_METHOD": "approle"})
    assert done.returncode == 78
    lines = [line.removeprefix("configuration refused: ") for line in done.stderr.splitlines()]
    needed = ("VAULT_ADDR", "VAULT_SECRET_PATH", "VAULT_ROLE_ID", "VAULT_SECRET_ID_FILE")
    assert lines == [f"{name}: required by SECRETS_BACKEND=vault" for name in needed]


WRONG = {
    "VAULT_CACERT=/nope": "VAULT_CACERT: /nope: not a readable PEM file (FileNotFoundError)",
    f"VAULT_CACERT={__file__}": f"VAULT_CACERT: {__file__}: not a readable PEM file (SSLError)",
    "VAULT_ADDR=vault.internal:8200": "VAULT_ADDR: use a URL such as https://vault.internal:8200",
    "VAULT_ADDR=https://[::1": "VAULT_ADDR: use a URL such as https://vault.internal:8200",
    "VAULT_ADDR=https://vault:82000": "VAULT_ADDR: use a URL such as https://vault.internal:8200",
    "VAULT_ADDR=https://": "VAULT_ADDR: use a URL such as https://vault.internal:8200",
    "VAULT_ADDR=https://va ult": "Vault: auth/approle/login: InvalidURL",
    "VAULT_NAMESPACE=a\nb": "Vault: auth/approle/login: InvalidHeader",
}


@pytest.mark.parametrize("setting", WRONG)
def test_a_setting_that_no_wait_makes_right_is_refused_in_one_line(
    hasty: Project, tmp_path: Path, setting: str
) -> None:
    """What requests and OpenSSL read is checked before they do: VAULT_CACERT is of issue 16."""
    (tmp_path / "id").write_text("id")
    env = {
        "SECRETS_BACKEND": "vault",
        "VAULT_ADDR": "https://127.0.0.1:9",
        "VAULT_AUTH_METHOD": "approle",
        "VAULT_ROLE_ID": "id",
        "VAULT_SECRET_ID_FILE": str(tmp_path / "id"),
        "VAULT_SECRET_PATH": SLUG,
    }
    name, _, value = setting.partition("=")
    done = hasty.quick("serve", env={"PORT": "0", **env, name: value})
    assert (done.returncode, done.stderr) == (78, f"configuration refused: {WRONG[setting]}\n")


def test_a_token_waits_for_a_vault_that_is_away(hasty: Project) -> None:
    """As the other ways to log in do."""
    env = {"SECRETS_BACKEND": "vault", "VAULT_AUTH_METHOD": "token", "VAULT_TOKEN": SECRET, "VAULT_SECRET_PATH": SLUG}
    code, line = ends(hasty, {**env, "VAULT_ADDR": f"http://127.0.0.1:{free_port()}"})
    away = "configuration unavailable: Vault: auth/token/lookup-self: ConnectionError"
    assert (code, line) == (1, f"{away}; gave up after 1.5 s")


def test_production_refuses_a_token(project: Project, side: Side) -> None:
    env = {"ENVIRONMENT": "production", **side.env, "VAULT_AUTH_METHOD": "token", "VAULT_TOKEN": side.vault.root}
    done = project.quick("serve", env=env)
    assert (done.returncode, side.vault.root in done.stderr) == (78, False)
    assert "VAULT_AUTH_METHOD: a fixed token is refused in production" in done.stderr
    assert side.vault.asked("lookup-self") == 0


def be_a_file(folder: Path) -> None:
    folder.rmdir()
    folder.write_text(SECRET)


FILE_FAULTS: dict[str, Callable[[Path], object]] = {
    "missing": lambda folder: folder.rmdir(),
    "no file": lambda folder: None,
    "empty": lambda folder: (folder / "api_key").write_text("\n"),
    "no text": lambda folder: (folder / "api_key").write_bytes(b"\xff\xfe\x00" + SECRET.encode()),
    "UTF-16": lambda folder: (folder / "api_key").write_bytes(SECRET.encode("utf-16-le")),
    "a file": be_a_file,
}
FILE_ANSWERS = {
    "missing": (1, "configuration unavailable: SECRETS_DIR: {}: FileNotFoundError; gave up after 1.5 s"),
    "no file": (1, "configuration unavailable: SECRETS_DIR: {}: no file; gave up after 1.5 s"),
    "empty": (1, "configuration unavailable: SECRETS_DIR: {}: empty: api_key; gave up after 1.5 s"),
    "no text": (78, "configuration refused: SECRETS_DIR: {}/api_key: no UTF-8 text; put binary files elsewhere"),
    "UTF-16": (78, "configuration refused: SECRETS_DIR: {}/api_key: no UTF-8 text; put binary files elsewhere"),
    "a file": (78, "configuration refused: SECRETS_DIR: {}: NotADirectoryError"),
}


@pytest.mark.parametrize("fault", FILE_FAULTS)
def test_files_that_cannot_be_read_end_the_start(hasty: Project, tmp_path: Path, fault: str) -> None:
    folder = tmp_path / "secrets"
    folder.mkdir()
    FILE_FAULTS[fault](folder)
    code, line = FILE_ANSWERS[fault]
    assert ends(hasty, {"SECRETS_BACKEND": "files", "SECRETS_DIR": str(folder)}) == (code, line.format(folder))


UNREADABLE = """
import os, sys
from pathlib import Path
from my_service.platform.secrets.files import Files
if os.getuid() == 0:
    os.setuid(65534)  # root may read everything
Files(Path(sys.argv[1])).read()
"""


def unreadable(project: Project, folder: Path) -> str:
    """What reading says of a file that only somebody else may read."""
    (folder / "api_key").write_text(SECRET)
    (folder / "api_key").chmod(0)
    done = project.run(str(project.venv / "bin/python"), "-c", UNREADABLE, str(folder), check=False)
    assert SECRET not in done.stderr
    return done.stderr.splitlines()[-1]


def test_a_file_that_may_not_be_read_is_refused(hasty: Project, tmp_path: Path) -> None:
    said = unreadable(hasty, tmp_path)
    assert "ConfigurationError: SECRETS_DIR: " in said
    assert said.endswith(": PermissionError")


def test_a_backend_that_was_not_emitted_is_refused(project: Project) -> None:
    done = project.quick("serve", env={"SECRETS_BACKEND": "aws"})
    assert (done.returncode, "SECRETS_BACKEND: aws is not part of this service; use one of env" in done.stderr) == (
        78,
        True,
    )


# --- later ----------------------------------------------------------------------------------------------------------


def lines(service: Service, text: str) -> int:
    return service.log.count(text)


def told(service: Service) -> list[str]:
    answer: list[str] = service.client.get("/told").json()
    return answer


def endures(service: Service, side: Side, fault: str, number: int) -> None:
    """One outage, the so manieth: requests are answered, and however often Vault is tried, it is two lines."""
    with faulty(side, fault) as error:
        until(lambda: lines(service, "secrets are not renewed") == number)
        said = side.vault.network.said
        until(lambda: fault in ("hung", "refused") or side.vault.network.said > said + 3)
        for _ in range(10):
            assert [service.client.get(path).status_code for path in (ITEMS, "/readyz")] == [200, 200]
        # While it is being sealed, it gives no answer or 500.
        assert fault == "sealed" or f"metadata/my-service: {error}" in service.log
    until(lambda: lines(service, "secrets are current again") == number)


def test_a_running_service_keeps_what_it_has(hasty: Project, side: Side, tmp_path: Path) -> None:
    """Through five outages; then a new value arrives."""
    url = f"sqlite:///{tmp_path}/x.db"
    migrated(hasty, url)
    with hasty.serve(tmp_path / "run", side.env) as service:
        assert told(service) == ["listening"]
        for number, fault in enumerate(FAULTS, 1):
            endures(service, side, fault, number)
        side.write(api_key="second", database_url=url)
        until(lambda: told(service) == ["listening", "second", "second"])  # told again, since it failed
        until(lambda: lines(service, "secret rotated") == 1)
        counts = [lines(service, text) for text in ("not renewed", "current again", "does not work")]
        assert counts == [5, 5, 1]
        assert "second" not in service.log


def test_files_are_swapped_lost_and_found(hasty: Project, tmp_path: Path) -> None:
    folder, url = tmp_path / "secrets", f"sqlite:///{tmp_path}/x.db"
    migrated(hasty, url)
    swap(folder, api_key="first\n", database_url=f"{url}\r\n", sentry_dsn="off")
    with hasty.serve(tmp_path / "run", {"SECRETS_BACKEND": "files", "SECRETS_DIR": str(folder)}) as service:
        assert told(service) == ["listening"]
        assert service.client.get(ITEMS).status_code == 200  # the line ends were none of the address
        (folder / "lost+found").mkdir()
        (folder / "gone").symlink_to("nowhere")
        swap(folder, api_key="\ufeffsecond \n", database_url=url, sentry_dsn="http://public@127.0.0.1:1/1")
        until(lambda: told(service) == ["listening", "second", "second"])
        assert lines(service, "a secret changed; restart to use it") == 1
        swap(folder, api_key="", database_url=url)
        until(lambda: lines(service, "secrets are not renewed") == 1)
        time.sleep(1.5)  # for more tries
        assert (lines(service, "secrets are not renewed"), told(service)[-1]) == (1, "second")
        swap(folder, database_url=url)  # one that is gone keeps its value
        until(lambda: lines(service, "secrets are current again") == 1)
        (folder / "..data").rename(folder / "away")
        until(lambda: lines(service, "secrets are not renewed") == 2)
        assert [service.client.get(path).status_code for path in (ITEMS, "/readyz")] == [200, 200]
        (folder / "away").rename(folder / "..data")
        until(lambda: lines(service, "secrets are current again") == 2)
        swap(folder, api_key="third", database_url=url)
        until(lambda: told(service) == ["listening", "second", "second", "third", "third"])


SABOTAGES = {
    "each try": Body("secrets:Store._log", "self.failure = None\noriginal(error)"),
    "it gives up": Body("secrets:Store._log", "original(error)\nif error:\n    raise error"),
    "what is gone": Body(
        "secrets:Store._notify",
        "self.values = {each.name: '' for each in self.listeners} | self.values\nawait original()",
    ),
    "told once": Body(
        "secrets:Store._notify",
        """
        await original()
        for each in self.listeners:
            each.notified = self.values.get(each.name, each.notified)
        """,
    ),
    "not refused": Body(
        "secrets:Files.read",
        """
        try:
            return original()
        except ConfigurationError as error:
            raise SourceUnavailable(*error.args) from None
        """,
    ),
}


@pytest.mark.sabotage
@pytest.mark.parametrize("name", SABOTAGES)
def test_a_sabotaged_store_fails_the_proof(
    hasty: Project, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.secrets.conftest.SECONDS", 2.5)
    sick = hasty.variant(tmp_path / "sick", SABOTAGES[name])
    proof = (
        test_a_file_that_may_not_be_read_is_refused if name == "not refused" else test_files_are_swapped_lost_and_found
    )
    with pytest.raises((AssertionError, ServerError)):
        proof(sick, tmp_path)


# --- the lease ------------------------------------------------------------------------------------------------------


def scraped(project: Project, side: Side, folder: Path) -> list[dict[str, float]]:
    """What Prometheus gets to see of the token's lease, twice."""
    port = free_port()
    env = {**side.env, "OTEL_METRICS_EXPORTER": "prometheus", "METRICS_PORT": str(port)}
    found = []
    with project.serve(folder / "run", env):
        for _ in range(2):
            text = httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False).text
            found.append({name: float(value) for name, value in re.findall(LEASE, text, re.M)})
            time.sleep(0.2)
    return found


def test_the_time_left_is_a_metric(hasty: Project, side: Side, tmp_path: Path) -> None:
    first, second = scraped(hasty, side, tmp_path)
    assert first.keys() == set(LEASES.split())
    assert first["secrets_lease_duration_seconds"] == 1200
    assert 1100 < second["secrets_lease_remaining_seconds"] < first["secrets_lease_remaining_seconds"] < 1200
