"""The emitted Dockerfile, built and run for real: what is in the image, what it may do, how it ends."""

import errno
import json
import os
import subprocess
import tarfile
import threading
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from tests import commands
from tests.database.conftest import Database
from tests.image.conftest import DOCKERFILE, IGNORED, PLANTED, PRODUCTION, SECRET, Build, make, plant, serve
from tests.projects import Project
from tests.sabotage import Body, Gone, Line, Sabotage
from tests.servers import wheels
from tests.servers.engine import Container, Engine, Image
from tests.servers.postgres import IMAGE as POSTGRES
from tests.servers.process import ServerError

pytestmark = pytest.mark.servers
MOST_BYTES = 45_000_000  # of the service's own layers, compressed
USER = 65532
NO_LOCK = "there is no uv.lock: type make setup, and commit it"
TOOLS = ("cc", "clang", "gcc", "g++", "ld", "make", "pip", "pip3", "uv")
# What a container says of itself: who it is, what it may do, what of the code it may change.
WHO = """
import json, os
status = dict(line.split(":\\t", 1) for line in open("/proc/self/status").read().splitlines() if ":\\t" in line)
try:
    error = open("/app/x", "w") and 0
except OSError as refused:
    error = refused.errno
def loose(path):  # by its mode: nothing can be written anyway as long as the file system is read-only
    about = os.lstat(path)
    return about.st_uid or not os.path.islink(path) and about.st_mode & 0o22
walked = [each for top in ("/app", "/opt") for each in os.walk(top)]
code = [os.path.join(at, name) for at, _, files in walked for name in [".", *files]]
assert len(code) > 1000
print(json.dumps({
    "user": [os.getuid(), os.getgid()], "rights": status["CapEff"], "gains": status["NoNewPrivs"], "write": error,
    "writable": [path for path in code if loose(path)],
}))
"""
FIND = """
import os, shutil, sys
found = [name for name in sys.argv[1:] if shutil.which(name, path=os.environ["PATH"] + ":/usr/local/bin:/usr/bin:/bin")]
for at, folders, files in os.walk("/usr"):
    found += [os.path.join(at, name) for name in folders if name == "pip"]
print(found)
"""
GREP = """
import os, sys
files = [os.path.join(at, name) for top in ("/app", "/opt") for at, _, files in os.walk(top) for name in files]
print([path for path in files if os.path.isfile(path) and sys.argv[1].encode() in open(path, "rb").read()])
"""
LIST = """
import json, os
files = [os.path.join(at, name) for at, _, names in os.walk("/context") for name in names]
print(json.dumps([os.path.relpath(file, "/context") for file in files]))
"""
# Python says where the code of each module comes from. In `main` and the server is all that a start imports.
COMPILED = """
from my_service import main
main.app()
import uvicorn.loops.uvloop, uvicorn.protocols.websockets.websockets_sansio_impl
"""


def base_of(project: Project) -> str:
    """The image that the Dockerfile begins with."""
    (line,) = (each for each in (project.root / DOCKERFILE).read_text().splitlines() if "ARG RUNTIME_IMAGE=" in each)
    return line.partition("=")[2]


def read(archive: tarfile.TarFile, name: str) -> bytes:
    """A file of an archive."""
    file = archive.extractfile(name)
    assert file
    return file.read()


def about(image: Image, **env: str) -> dict[str, object]:
    """What a container says of itself."""
    done = image.run("-c", WHO, program="python", **env)
    assert done.returncode == 0, done.stderr
    told: dict[str, object] = json.loads(done.stdout)
    return told


def works_confined(image: Image) -> None:
    """It runs as nobody, without rights, on a file system that it cannot change."""
    told = about(image)
    assert told["user"] == [USER, USER]
    assert (told["rights"], told["gains"]) == ("0" * 16, "1")
    assert told["write"] == errno.EROFS
    assert told["writable"] == []


def serves(container: Container) -> None:
    """It answers, and its database is ready."""
    container.process.wait_until(lambda: lives(container), 30)
    with httpx.Client(base_url=container.url, trust_env=False) as client:
        assert client.get("/livez").status_code == 200
        ready = client.get("/readyz")
        assert (ready.status_code, "schema at" in ready.text) == (200, True), ready.text
        item = client.post("/v1/items", json={"name": "lamp"}).json()["id"]
        assert client.get(f"/v1/items/{item}").json()["name"] == "lamp"


def lives(container: Container) -> bool:
    try:
        return httpx.get(f"{container.url}/livez", trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


def ends_well(container: Container) -> None:
    """A request that is running when it shall end gets its answer."""
    container.process.wait_until(lambda: lives(container), 30)
    answers: list[httpx.Response] = []
    slow = threading.Thread(
        target=lambda: answers.append(httpx.get(f"{container.url}/slow", timeout=20, trust_env=False))
    )
    slow.start()
    time.sleep(0.3)  # it has arrived: on loopback
    assert container.stop() == 0
    slow.join(20)
    assert [answer.status_code for answer in answers] == [200]


def is_healthy(container: Container) -> None:
    """The check of the image sees that it lives."""
    container.process.wait_until(lambda: lives(container), 30)
    assert container.run(*container.image.health).returncode == 0


def has_no_tools(image: Image) -> None:
    """There is nothing that builds or installs."""
    assert image.run("-c", FIND, "python", program="python").stdout.strip() == "['python']"
    assert image.run("-c", FIND, *TOOLS, program="python").stdout.strip() == "[]"


def starts_compiled(image: Image) -> None:
    """All that a start imports comes as bytecode, the standard library too."""
    done = image.run("-c", COMPILED, program="python", PYTHONVERBOSE="1", ENVIRONMENT="staging", **PRODUCTION)
    assert done.returncode == 0, done.stderr[-2000:]
    sources = [line.split("'")[1] for line in done.stderr.splitlines() if line.startswith("# code object from '")]
    assert len(sources) > 500
    assert [path for path in sources if not path.endswith(".pyc")] == []


def context(engine: Engine, project: Project, folder: Path) -> set[str]:
    """The files that reach a build, below the project."""
    file = folder / "Context"
    file.write_text(f"FROM {base_of(project)} AS service\nCOPY . /context\n")
    done = make(engine, project, "", f"--file={file}")
    assert done.returncode == 0, done.stderr
    return set(json.loads(engine.image("my-service").run("-c", LIST, program="python3").stdout))


def keeps_secrets(engine: Engine, project: Project, folder: Path) -> None:
    """Only what is built from reaches the build."""
    plant(project)
    sent = context(engine, project, folder)
    assert {"pyproject.toml", "uv.lock", "migrations/env.py", "src/my_service/main.py", IGNORED} <= sent
    assert [file for file in sorted(sent) if file in PLANTED or file.startswith((".git/", "tests/", "docs/"))] == []


def layers(image: Image) -> list[str]:
    found: list[str] = image.about["RootFS"]["Layers"]
    return found


def test_it_serves_with_the_schema_that_ops_has_migrated(container: Container) -> None:
    serves(container)


def test_it_has_no_rights_and_can_change_nothing(image: Image) -> None:
    works_confined(image)


def test_a_request_that_runs_at_sigterm_is_answered_and_it_exits_with_0(
    image: Image, database: Database, tmp_path: Path
) -> None:
    with serve(image, tmp_path, database) as container:
        ends_well(container)


def test_nothing_is_compiled_at_the_start(image: Image) -> None:
    starts_compiled(image)


def test_without_settings_it_refuses_in_a_line_each(image: Image) -> None:
    done = image.run()
    assert done.returncode == 78
    assert {line.split(":")[0] for line in done.stderr.splitlines()} == {"configuration refused"}


def test_it_has_no_tool_that_builds_or_installs(image: Image) -> None:
    has_no_tools(image)


def test_it_says_what_it_is(image: Image, source: Project, container: Container) -> None:
    config = image.about["Config"]
    commit, made = source.run("git", "log", "-1", "--format=%H %cI").stdout.split()
    labels = {name.rpartition(".")[2]: text for name, text in config["Labels"].items() if "opencontainers" in name}
    assert labels == {
        "created": made,
        "revision": commit,
        "source": "https://github.com/your-org/my-service",
        "version": "0.1.0",
    }
    assert (config["User"], config["StopSignal"]) == (f"{USER}:{USER}", "SIGTERM")
    is_healthy(container)
    assert httpx.get(f"{container.url}/version", trust_env=False).json()["commit"] == commit


def test_the_health_check_tells_a_live_process_from_a_dead_one(image: Image, container: Container) -> None:
    is_healthy(container)
    program, *arguments = image.health
    assert image.run(*arguments, program=program, PORT="9").returncode == 1


def test_its_own_layers_are_small(engine: Engine, source: Project, image: Image, tmp_path: Path) -> None:
    base = engine.image(base_of(source))
    engine.do("save", f"--output={tmp_path}/image.tar", image.id)
    with tarfile.open(tmp_path / "image.tar") as archive:
        (about,) = json.loads(read(archive, "manifest.json"))
        own = about["Layers"][len(layers(base)) :]
        sizes = [len(zlib.compress(read(archive, layer))) for layer in own]
    assert 20_000_000 < sum(sizes) < MOST_BYTES, sizes


def test_another_build_has_the_same_layers(build: Build, source: Project, image: Image, tmp_path: Path) -> None:
    again = source.variant(tmp_path / "again")
    for file in again.root.rglob("*"):
        os.utime(file)
    assert layers(build(again, "", "--no-cache")) == layers(image)


@pytest.mark.wide
def test_without_a_database_it_serves_too(build: Build, bare_project: Project, tmp_path: Path) -> None:
    image = build(bare_project.variant(tmp_path / "bare"))
    with image.start(tmp_path, **PRODUCTION) as container:
        is_healthy(container)
        assert httpx.get(f"{container.url}/readyz", trust_env=False).status_code == 200


def test_no_secret_reaches_the_build(engine: Engine, source: Project, tmp_path: Path) -> None:
    keeps_secrets(engine, source, tmp_path)


def test_hadolint_finds_nothing(source: Project, bare_project: Project) -> None:
    for root in (source.root, bare_project.root):
        done = commands.run(wheels.ensure("hadolint"), DOCKERFILE, cwd=root)
        assert (done.returncode, done.stdout) == (0, "")


def test_without_a_lock_it_says_what_to_type(engine: Engine, source: Project, tmp_path: Path) -> None:
    unlocked = source.variant(tmp_path / "unlocked", Gone("uv.lock"))
    done = make(engine, unlocked, "")
    assert done.returncode == 2
    assert done.stderr.splitlines()[0] == NO_LOCK
    direct = unlocked.run(
        *engine.within(unlocked.root), *engine.building, "build", *engine.build_options, ".", check=False
    )
    assert direct.returncode != 0
    assert NO_LOCK in direct.stderr + direct.stdout


def test_what_is_ignored_by_git_is_in_no_layer(image: Image) -> None:
    found = image.run("-c", GREP, SECRET, program="python").stdout
    assert found.strip() == "[]"


def has_wheels(project: Project, platform: str, python: str) -> bool:
    """Whether every locked dependency of both images comes built for a machine, so that no build needs a compiler."""
    locked = project.run(
        "uv", "export", "--quiet", "--no-dev", "--all-extras", "--no-emit-project", "--no-hashes"
    ).stdout
    assert "psycopg-binary" in locked
    options = ["--dry-run", "--only-binary=:all:", "--no-deps", "--target=none", "--requirements=-"]
    wanted = [f"--python-platform={platform}-manylinux_2_28", f"--python-version={python}"]
    return commands.run("uv", "pip", "install", *options, *wanted, cwd=project.root, text=locked).returncode == 0


@pytest.mark.parametrize("platform", ["aarch64", "x86_64"])
def test_amd64_and_arm64_need_no_compiler(project: Project, platform: str) -> None:
    assert has_wheels(project, platform, "3.14")


@pytest.mark.wide
@pytest.mark.parametrize(("python", "there"), [("3.12", True), ("3.13", True), ("3.99", False)])
def test_other_versions_of_python_need_none_either(project: Project, python: str, there: bool) -> None:
    assert has_wheels(project, "aarch64", python) is there


# --- the image with the tools ------------------------------------------------------------------------------------


def test_migrations_are_for_the_other_image(image: Image, database: Database) -> None:
    done = image.run("migrate", **PRODUCTION, **database.env)
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
    assert done.stderr.startswith("migrate needs alembic: install the extra `ops`")


def test_its_client_is_of_the_server_that_compose_has(ops: Image, database: Database) -> None:
    version = ops.run("--version", program="pg_dump").stdout.split()[2]
    assert version.split(".")[0] == POSTGRES.partition(":")[2].partition("-")[0]
    dumped = ops.run("--schema-only", "--table=items", database.admin, program="pg_dump")
    assert "CREATE TABLE public.items" in dumped.stdout, dumped.stderr


def test_it_makes_backups_on_a_read_only_root(ops: Image, tmp_path: Path) -> None:
    store = tmp_path / "store"
    store.mkdir()
    store.chmod(0o777)
    env = {**PRODUCTION, "ENVIRONMENT": "staging", "DATABASE_URL": "sqlite:////store/service.db"}
    env |= {"BACKUP_URL": "file:///store", "BACKUP_AGE_RECIPIENT": "off"}

    def run(*command: str) -> subprocess.CompletedProcess[str]:
        return ops.run(*command, options=(f"--volume={store}:/store", "--tmpfs=/var/tmp"), **env)

    for command in (["migrate"], ["backup", "create"]):
        done = run(*command)
        assert done.returncode == 0, (command, done.stderr)
    assert json.loads(run("backup", "status", "--json").stdout)  # compared with the plan that the image has


def test_the_tools_have_no_rights_either(ops: Image) -> None:
    works_confined(ops)


# --- what each proof is worth ------------------------------------------------------------------------------------

AS_ROOT = 'USER 0\nRUN ["chmod", "-R", "a+w", "/opt/service"]\nUSER 65532:65532'


@pytest.mark.sabotage
@pytest.mark.parametrize(
    ("sabotage", "proof"),
    [
        (Line(DOCKERFILE, "STOPSIGNAL", "USER 0"), works_confined),
        (Line(DOCKERFILE, "STOPSIGNAL", AS_ROOT), works_confined),
        (Line(DOCKERFILE, "ENV PYC_INVALIDATION_MODE=", "ENV A=b \\"), starts_compiled),
        (Line(DOCKERFILE, "[shutil.rmtree(each)", "\\"), has_no_tools),
    ],
    ids=["root", "writable", "stale", "pip"],
)
def test_a_spoiled_image_is_noticed(
    build: Build, source: Project, tmp_path: Path, sabotage: Sabotage, proof: Callable[[Image], None]
) -> None:
    sick = build(source.variant(tmp_path / "sick", sabotage))
    with pytest.raises(AssertionError):
        proof(sick)


@pytest.mark.sabotage
@pytest.mark.parametrize(
    ("sabotage", "proof"),
    [
        (Body("server:serve", "open('started', 'w')\noriginal(app, reload=reload)"), serves),
        (Line(DOCKERFILE, 'CMD ["serve"]', "ENTRYPOINT my-service serve; exit"), ends_well),
        (Line(DOCKERFILE, "connection.request(", "connection.request('GET', '/x'); \\"), is_healthy),
    ],
    ids=["writes", "shell form", "health"],
)
def test_a_spoiled_service_is_noticed(
    build: Build,
    source: Project,
    database: Database,
    tmp_path: Path,
    sabotage: Sabotage,
    proof: Callable[[Container], None],
) -> None:
    sick = build(source.variant(tmp_path / "sick", sabotage))
    with serve(sick, tmp_path, database) as container, pytest.raises((AssertionError, ServerError)):
        proof(container)


@pytest.mark.sabotage
@pytest.mark.parametrize("sabotage", [Gone(".dockerignore"), Line(".dockerignore", "**/.*")], ids=["gone", "dots"])
def test_a_spoiled_list_is_noticed(engine: Engine, source: Project, tmp_path: Path, sabotage: Sabotage) -> None:
    with pytest.raises(AssertionError):
        keeps_secrets(engine, source.variant(tmp_path / "sick", sabotage), tmp_path)
