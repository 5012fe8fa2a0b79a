"""What a developer meets first: the banner, a missing uv, samples, imports, a failing test, ignored files."""

import json
import os
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from packaging.requirements import Requirement

from tests import commands
from tests.plant import Feature
from tests.projects import ROOT, Project, render
from tests.sabotage import Body, Line, Sabotage
from tests.servers.process import Process, free_port
from tests.service.conftest import migrated, refusals

URL = re.compile(r"http://127\.0\.0\.1:\d+[^ \n,]*")


def answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5, trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


# --- the banner


@contextmanager
def reloading(project: Project, folder: Path, **env: str) -> Iterator[str]:
    """What `make dev` runs, through one reload: all that it printed."""
    port, log = free_port(), folder / "log"
    env = migrated(project, f"sqlite:///{folder}/service.db") | {"PORT": str(port)} | env
    process = Process(project.command("serve", "--reload"), log=log, cwd=project.root, env=project.env(env))
    url = f"http://127.0.0.1:{port}/version"
    try:
        process.wait_until(lambda: answers(url), 60)
        main = project.root / "src/my_service/main.py"
        main.write_text(f"{main.read_text()}\n")
        process.wait_until(lambda: "Reloading" in log.read_text(), 60)
        process.wait_until(lambda: answers(url), 60)
        yield log.read_text()
    finally:
        process.stop()


def invites_once(project: Project, folder: Path) -> None:
    with reloading(project, folder) as printed:
        banner = printed.partition("\n\n")[0]
        found = URL.findall(banner)
        assert [url.rpartition(":")[2].lstrip("0123456789") for url in found] == ["", "/docs", "/__dev__", "/v1/items"]
        assert f"curl {found[-1]}" in banner
        assert [url for url in found[1:] if not answers(url)] == []
        assert printed.count("Serving http") == 1


@pytest.mark.servers
def test_make_dev_says_once_what_to_open_and_to_type(project: Project, tmp_path: Path) -> None:
    assert project.run("make", "-n", "dev").stdout.rstrip().endswith("my-service serve --reload")
    invites_once(project.variant(tmp_path / "own"), tmp_path)


@pytest.mark.servers
@pytest.mark.wide
def test_elsewhere_than_on_a_developers_machine_there_is_no_banner(project: Project, tmp_path: Path) -> None:
    own = project.variant(tmp_path / "own")
    with reloading(own, tmp_path, ENVIRONMENT="staging", LOG_FORMAT="console") as printed:
        assert "serving" in printed
        assert "/__dev__" not in printed


@pytest.mark.servers
@pytest.mark.wide
def test_the_banner_names_no_page_that_is_absent(project: Project, tmp_path: Path) -> None:
    main = project.root.joinpath("src/my_service/main.py").read_text()
    own = project.variant(tmp_path / "own")
    (own.root / "src/my_service/main.py").write_text(main.replace("set()", '{"api_docs", "dev"}'))
    shutil.rmtree(own.root / "src/my_service/features/items")
    with reloading(own, tmp_path) as printed:
        found = URL.findall(printed.partition("\n\n")[0])
        assert [url.rpartition(":")[2].lstrip("0123456789") for url in found] == ["", "/version"]


@pytest.mark.servers
@pytest.mark.sabotage
@pytest.mark.parametrize(
    "sabotage",
    [
        Body("server:_first_steps", "return ''"),
        Body("routes:example_path", "return '/nothing'"),
        Body("features:install", "print('\\nServing http', flush=True)\noriginal(app)"),
    ],
    ids=["nothing", "a page that is not there", "at each reload"],
)
def test_a_sabotaged_banner_is_noticed(project: Project, tmp_path: Path, sabotage: Sabotage) -> None:
    sick = project.variant(tmp_path / "sick", sabotage)
    with pytest.raises(AssertionError):
        invites_once(sick, tmp_path)


# --- make without uv

TARGETS = [*re.findall(r"^([a-z]+):", (ROOT / "template/Makefile.jinja").read_text(), re.MULTILINE), ""]


def names_the_way_to_uv(project: Project, target: str, path: str) -> None:
    found = subprocess.run(
        ["/usr/bin/env", f"PATH={path}", "make", *filter(None, [target])],
        cwd=project.root,
        env=project.env(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (found.returncode, found.stdout, len(found.stderr.splitlines())) == (2, "", 1), found
    assert 'uv is not installed: type "pipx install uv", or see https://' in found.stderr


@pytest.fixture
def without_uv(tmp_path: Path) -> str:
    """A PATH with make and a shell."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for tool in ("make", "sh", "awk", "test"):
        (folder / tool).symlink_to(str(shutil.which(tool)))
    return str(folder)


def test_each_target_without_uv_says_in_one_line_how_to_get_it(project: Project, without_uv: str) -> None:
    assert {"dev", "check", "roles", ""} <= {*TARGETS}
    for target in TARGETS:
        names_the_way_to_uv(project, target, without_uv)
    assert "uv.toml" not in project.run("make", f"UV={shutil.which('uv')}", "help").stderr


@pytest.mark.sabotage
def test_a_makefile_that_runs_into_the_shell_is_noticed(project: Project, tmp_path: Path, without_uv: str) -> None:
    sick = project.variant(tmp_path / "sick", Line("Makefile", "$(error"))
    with pytest.raises(AssertionError):
        names_the_way_to_uv(sick, "test", without_uv)


# --- samples

PARSE = """
import sys
from pathlib import Path
from ready.config import load
print(load(Path(sys.argv[1])).model_dump_json())
"""


def uncommented(project: Project) -> None:
    """Each sample of `ready.toml` and `.env.example` is valid when it is uncommented, alone and with all others."""
    ready = project.root / "ready.toml"
    ready.write_text(re.sub(r"^#(?=[a-z\[])", "", ready.read_text(), flags=re.MULTILINE))
    python = str(project.venv / "bin/python")
    config = json.loads(project.run(python, "-c", PARSE, "ready.toml", env={"PYTHONPATH": "."}).stdout)
    assert config["probe"]["read"]
    assert config["probe"]["write"]["body"] == {"name": "{marker}"}
    assert config["far_ends"]["metrics"]["url"].startswith("http://")
    assert config["far_ends"]["traces"]["token_variable"] == "TRACES_TOKEN"
    assert config["waivers"][0]["check"] == "errors.raised"
    example = (project.root / ".env.example").read_text()
    (project.root / ".env").write_text(re.sub(r"^#(?=[A-Z][A-Z0-9_]*=)", "", example, flags=re.MULTILINE))
    assert refusals(project, [{"LOG_LEVEL": "INFO"}]) == ["served"]
    (project.root / ".env").write_text("LOG_LEVEL=unknown\n")
    assert refusals(project, [{"PORT": "8000"}]) == ["LOG_LEVEL"]


@pytest.mark.parametrize(
    "answers", [{}, pytest.param({"include_example": False}, marks=pytest.mark.wide)], ids=["example", "no example"]
)
def test_each_sample_is_valid_when_it_is_uncommented(
    template: Path, project: Project, tmp_path: Path, answers: dict[str, object]
) -> None:
    own = Project(render(template, tmp_path / "own", **answers))
    own.venv = project.venv
    uncommented(own)


@pytest.mark.sabotage
def test_a_sample_that_is_not_toml_is_noticed(project: Project, tmp_path: Path) -> None:
    wrong = '#[far_ends.metrics] url = "http://127.0.0.1:9090"'
    sick = project.variant(tmp_path / "sick", Line("ready.toml", "#[far_ends.metrics]", wrong))
    with pytest.raises(AssertionError):
        uncommented(sick)


# --- uvloop


def test_uvloop_is_only_for_platforms_that_it_supports(project: Project) -> None:
    """As in uvicorn's extra `standard`: uvloop's setup.py refuses Windows and Cygwin, and PyPy has no use of it."""
    text = (project.root / "pyproject.toml").read_text()
    required = {each.name: each for each in map(Requirement, tomllib.loads(text)["project"]["dependencies"])}
    marker = required["uvloop"].marker
    assert marker
    tried = [
        ("linux", "CPython"),
        ("darwin", "CPython"),
        ("win32", "CPython"),
        ("cygwin", "CPython"),
        ("linux", "PyPy"),
    ]
    found = [marker.evaluate({"sys_platform": on, "platform_python_implementation": by}) for on, by in tried]
    assert found == [True, True, False, False, False]


@pytest.mark.servers
def test_the_service_runs_without_uvloop(bare_project: Project, tmp_path: Path) -> None:
    def link(source: str, target: str) -> str:
        os.link(source, target)
        return target

    own = bare_project.variant(tmp_path / "own")
    unwanted = shutil.ignore_patterns("uvloop*")
    own.venv = shutil.copytree(bare_project.venv, tmp_path / "venv", symlinks=True, copy_function=link, ignore=unwanted)
    assert own.run(str(own.venv / "bin/python"), "-c", "import uvicorn, uvloop", check=False).stderr.endswith(
        "No module named 'uvloop'\n"
    )
    with own.serve(tmp_path / "run") as service:
        assert service.client.get("/v1/items").status_code == 200
        service.process.stop()
        assert service.process.wait() == 0


# --- imports that production does not have

IMPORTS = '''"""Imports."""

{}
from fastapi import APIRouter

router = APIRouter()


@router.get("/imports")
async def imports() -> None:
    {}
'''


def judged(project: Project, at_top: str = "", within: str = "") -> subprocess.CompletedProcess[str]:
    """What the check of imports in `make check` says of a feature."""
    Feature("imports", IMPORTS.format(at_top, within or "return None")).apply(project.root)
    (line,) = [each for each in project.run("make", "-n", "check").stdout.splitlines() if "deptry" in each]
    path = os.pathsep.join([str(project.venv / "bin"), os.environ["PATH"]])
    found = commands.run(
        "sh", "-c", line.replace("uv run --quiet ", ""), cwd=project.root, env=project.env({"PATH": path})
    )
    shutil.rmtree(project.root / "src/my_service/features/imports")
    return found


@pytest.mark.parametrize(
    ("at_top", "within", "name"),
    [
        ("import httpx2", "", "httpx2"),
        ("from yaml import safe_load", "", "yaml"),
        ("", "import pluggy", "pluggy"),
        ("import mypy_extensions as them", "", "mypy_extensions"),
    ],
    ids=["an extra of development", "another name than its package", "transitive, when it is called", "transitive"],
)
def test_an_import_that_only_development_has_is_refused(
    project: Project, tmp_path: Path, at_top: str, within: str, name: str
) -> None:
    found = judged(project.variant(tmp_path / "own"), at_top, within)
    assert found.returncode == 1
    (said,) = [line for line in found.stderr.splitlines() if "features/imports/routes.py" in line]
    assert f"'{name}' imported but" in said
    assert found.stderr.splitlines()[-1] == "add what production needs: uv add NAME"


def accepts(project: Project) -> None:
    assert judged(project, "import pydantic\nimport starlette").returncode == 0
    Line("pyproject.toml", '"wrapt', '"httpx2>=2", "pyyaml>=6", "wrapt",').apply(project.root)  # `uv add httpx2 pyyaml`
    assert judged(project, "import httpx2\nimport yaml").returncode == 0
    extra = 'extra = ["pluggy"]\nops = ['  # `uv add --optional extra pluggy`: the deployment chooses it
    Line("pyproject.toml", "ops = [", extra).apply(project.root)
    assert judged(project, "", "import pluggy").returncode == 0


def test_what_is_added_and_what_the_service_has_is_accepted(project: Project, tmp_path: Path) -> None:
    accepts(project.variant(tmp_path / "own"))


@pytest.mark.sabotage
def test_a_check_that_forgets_the_extra_is_noticed(project: Project, tmp_path: Path) -> None:
    sick = project.variant(tmp_path / "sick", Line("pyproject.toml", "optional_dependencies_dev_groups"))
    assert judged(sick, "import httpx2").returncode == 0


# --- a test that fails

BROKEN = Feature(
    "broken",
    '''"""A route with a fault."""

from fastapi import APIRouter

router = APIRouter()


def find(key: str) -> str:
    return {}[key]


@router.get("/broken")
async def broken() -> str:
    return find("lost")
''',
)
TEST = """from fastapi.testclient import TestClient


def test_broken(client: TestClient) -> None:
    assert client.get("/broken").status_code == 200
"""


def shows_the_fault(project: Project) -> None:
    (project.root / "tests/features/test_broken.py").write_text(TEST)
    found = project.run(
        str(project.venv / "bin/python"), "-m", "pytest", "-q", "tests/features/test_broken.py", check=False
    )
    assert found.returncode == 1
    assert "\nE       KeyError: 'lost'\n" in found.stdout
    assert "src/my_service/features/broken/routes.py:9: KeyError" in found.stdout


def test_a_failing_test_shows_the_exception_of_the_route(bare_project: Project, tmp_path: Path) -> None:
    shows_the_fault(bare_project.variant(tmp_path / "own", BROKEN))


@pytest.mark.sabotage
def test_a_door_that_hides_the_exception_is_noticed(bare_project: Project, tmp_path: Path) -> None:
    hidden = "try:\n    await original(scope, receive, send)\nexcept KeyError:\n    pass"
    sick = bare_project.variant(tmp_path / "sick", BROKEN, Body("http:Door.__call__", hidden))
    with pytest.raises(AssertionError):
        shows_the_fault(sick)


@pytest.mark.servers
def test_the_door_still_responds_and_logs_the_error_of_a_test(bare_project: Project, tmp_path: Path) -> None:
    own = bare_project.variant(tmp_path / "own", BROKEN)
    with own.serve(tmp_path / "run", {"ENVIRONMENT": "test"}) as service:
        problem = service.client.get("/broken").json()
        assert (problem["status"], "lost" in str(problem)) == (500, False)
        lines = [json.loads(line) for line in service.log.splitlines()]
        assert [line["event"] for line in lines if line.get("request_id") == problem["request_id"]] == [
            "unhandled error",
            "request",
        ]
        assert service.client.get("/version").status_code == 200


# --- the line of the console


def begins_with_what_matters(project: Project, folder: Path) -> None:
    with project.serve(folder) as service:
        service.client.get("/v1/items?limit=2", headers={"X-Request-ID": "console-line-1"})
        service.client.get("/nowhere/é", headers={"X-Request-ID": "console-line-2"})
        service.process.wait_until(lambda: "console-line-2" in service.log, 10)
        found, missed = [line for line in service.log.splitlines() if "request_id=console-line-" in line]
    shape = r"\d\d:\d\d:\d\d \[info +\] GET {} {} \d+(\.\d+)? ms +bytes=\d+ request_id=console-line-{}"
    assert re.fullmatch(shape.format("/v1/items", 200, 1), found), found
    assert re.fullmatch(shape.format("/nowhere/é", 404, 2), missed), missed


@pytest.mark.servers
def test_a_line_of_the_console_begins_with_method_path_status_and_time(bare_project: Project, tmp_path: Path) -> None:
    begins_with_what_matters(bare_project, tmp_path)


@pytest.mark.servers
@pytest.mark.sabotage
@pytest.mark.parametrize(
    "sabotage",
    [
        Body("logs:_for_people", "return line"),
        Body("logs:_for_people", "return {'trace_id': line.get('trace_id'), **original(line)}"),
    ],
    ids=["in another order", "with two ids"],
)
def test_a_sabotaged_line_of_the_console_is_noticed(bare_project: Project, tmp_path: Path, sabotage: Sabotage) -> None:
    sick = bare_project.variant(tmp_path / "sick", sabotage)
    with pytest.raises(AssertionError):
        begins_with_what_matters(sick, tmp_path / "run")


# --- ignored files

WRITTEN = (
    ".coverage", ".coverage.host.1", ".env", ".ready/last.html", ".venv/x", "__pycache__/x.pyc", "coverage.xml",
    "dist/x.whl", "htmlcov/index.html", "local.db", "local.db-wal", "profile.html", "profile.log", "report.html",
    "report.json", "report.xml",
)  # fmt: skip


def ignores_what_targets_write(project: Project) -> None:
    commands.must("git", "init", "--quiet", cwd=project.root)
    for name in WRITTEN:
        path = project.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    shown = commands.must("git", "status", "--short", "--untracked-files=all", cwd=project.root).splitlines()
    assert {"?? src/my_service/main.py", "?? uv.lock"} <= {*shown}
    assert [line for line in shown if line.removeprefix("?? ") in WRITTEN] == []


def test_what_a_target_writes_is_not_committed(project: Project, tmp_path: Path) -> None:
    ignores_what_targets_write(project.variant(tmp_path / "own"))


@pytest.mark.sabotage
def test_a_report_that_would_be_committed_is_noticed(project: Project, tmp_path: Path) -> None:
    sick = project.variant(tmp_path / "sick", Line(".gitignore", "/report.html"))
    with pytest.raises(AssertionError):
        ignores_what_targets_write(sick)
