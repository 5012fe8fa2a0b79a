"""What the environment says is checked before anything starts: one line per setting, exit 78, and no secret in it."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from tests import commands
from tests.projects import Edit, Project
from tests.sabotage import Body, Line, Sabotage, Value

pytestmark = pytest.mark.servers
SECRET = "hunter2-s3cret"
REAL = {
    "CACHE_URL": "off",
    "ENVIRONMENT": "production",
    "DATABASE_URL": f"postgresql://app:{SECRET}@127.0.0.1:1/orders",
    "OTEL_EXPORTER_OTLP_ENDPOINT": "off",
    "SECRETS_BACKEND": "env",
    "SENTRY_DSN": "off",
    "SHUTDOWN_DRAIN_SECONDS": "0",
    "TRUSTED_HOSTS": "orders.acme.test,*.acme.test",
}


def answers(project: Project, asked: Sequence[tuple[str, Mapping[str, str]]]) -> list[list[str]]:
    """For each command and environment the settings that are refused, one per line."""
    found = []
    for command, env in asked:
        done = project.quick(command, env={"PORT": "0", **env})
        lines = done.stderr.splitlines()
        assert (done.returncode, done.stdout) == (78, ""), done.stdout + done.stderr
        assert all(line.startswith("configuration refused: ") for line in lines), lines
        assert SECRET not in done.stderr
        found.append([line.removeprefix("configuration refused: ").split(":")[0] for line in lines])
    return found


NATIVE = ["OTEL_BSP_MAX_QUEUE_SIZE", "OTEL_METRICS_EXEMPLAR_FILTER"]
REFUSED: list[tuple[dict[str, str], list[str]]] = [
    (
        {"ENVIRONMENT": "production"},
        [
            "CACHE_URL",
            "DATABASE_URL",
            "OTEL_EXPORTER_OTLP_ENDPOINT",
            "SECRETS_BACKEND",
            "SENTRY_DSN",
            "TRUSTED_HOSTS",
        ],
    ),
    ({**REAL, "SECRETS_BACKEND": ""}, ["SECRETS_BACKEND"]),
    ({**REAL, "SECRETS_BACKEND": SECRET}, ["SECRETS_BACKEND"]),
    ({**REAL, "CACHE_URL": "memory://"}, ["CACHE_URL"]),
    ({**REAL, "CACHE_URL": "null://"}, ["CACHE_URL"]),
    ({"CACHE_URL": f"redis://:{SECRET}"}, ["CACHE_URL"]),
    ({"CACHE_URL": f"redis://app:{SECRET}@host:port"}, ["CACHE_URL"]),
    ({"CACHE_URL": f"memcached://app:{SECRET}@host:11211"}, ["CACHE_URL"]),
    ({**REAL, "DATABASE_URL": ""}, ["DATABASE_URL"]),
    ({**REAL, "DATABASE_URL": "sqlite:///./local.db"}, ["DATABASE_URL"]),
    ({**REAL, "DATABASE_URL": "postgresql://app:change-me@db.acme.test/x"}, ["DATABASE_URL"]),
    ({**REAL, "DATABASE_URL": "postgresql://app:x@db.example.com/x"}, ["DATABASE_URL"]),
    ({**REAL, "DATABASE_URL": f"mysql://a:{SECRET}@b/c"}, ["DATABASE_URL"]),
    ({**REAL, "DATABASE_URL": f"{SECRET}"}, ["DATABASE_URL"]),
    ({**REAL, "SENTRY_DSN": ""}, ["SENTRY_DSN"]),
    ({**REAL, "SENTRY_DSN": "https://public@sentry.example.com/1"}, ["SENTRY_DSN"]),
    ({**REAL, "CACHE_URL": "MEMORY://"}, ["CACHE_URL"]),
    ({**REAL, "TRUSTED_HOSTS": "*"}, ["TRUSTED_HOSTS"]),
    ({**REAL, "TRUSTED_HOSTS": "*,orders.acme.test"}, ["TRUSTED_HOSTS"]),
    ({**REAL, "TRUSTED_HOSTS": " , "}, ["TRUSTED_HOSTS"]),
    ({**REAL, "PORT": SECRET, "LOG_LEVEL": SECRET}, ["LOG_LEVEL", "PORT"]),
    ({"ENVIRONMENT": SECRET}, ["ENVIRONMENT"]),
    ({"ENVIRONMENT": ""}, ["ENVIRONMENT"]),
    ({"CACHE_URL": f"redis://:{SECRET}@host/0?socket_timeout=abc"}, ["CACHE_URL"]),
    ({"OTEL_BSP_MAX_QUEUE_SIZE": "64", "OTEL_METRICS_EXEMPLAR_FILTER": SECRET}, NATIVE),
    ({"SHUTDOWN_DRAIN_SECONDS": "-1"}, ["SHUTDOWN_DRAIN_SECONDS"]),
    ({"OTEL_EXPORTER_OTLP_ENDPOINT": SECRET}, ["OTEL_EXPORTER_OTLP_ENDPOINT"]),
    ({"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://collector:{SECRET}"}, ["OTEL_EXPORTER_OTLP_ENDPOINT"]),
    ({"OTEL_EXPORTER_OTLP_ENDPOINT": f"grpc://{SECRET}"}, ["OTEL_EXPORTER_OTLP_ENDPOINT"]),
    ({"OTEL_EXPORTER_OTLP_HEADERS": SECRET}, ["OTEL_EXPORTER_OTLP_HEADERS"]),
    ({"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, ["OTEL_EXPORTER_OTLP_PROTOCOL"]),
    ({"OTEL_EXPORTER_OTLP_TIMEOUT": "5s"}, ["OTEL_EXPORTER_OTLP_TIMEOUT"]),
    ({"OTEL_METRICS_EXPORTER": "statsd"}, ["OTEL_METRICS_EXPORTER"]),
    (
        {"OTEL_LOGS_EXPORTER": "file", "OTEL_TRACES_EXPORTER": "zipkin"},
        ["OTEL_LOGS_EXPORTER", "OTEL_TRACES_EXPORTER"],
    ),
    ({"OTEL_METRIC_EXPORT_INTERVAL": "soon"}, ["OTEL_METRIC_EXPORT_INTERVAL"]),
    ({"OTEL_RESOURCE_ATTRIBUTES": "team"}, ["OTEL_RESOURCE_ATTRIBUTES"]),
    ({"OTEL_TRACES_SAMPLER": "sometimes"}, ["OTEL_TRACES_SAMPLER"]),
    ({"OTEL_TRACES_SAMPLER_ARG": "often"}, ["OTEL_TRACES_SAMPLER_ARG"]),
    ({"OTEL_TRACES_SAMPLER_ARG": "1.5"}, ["OTEL_TRACES_SAMPLER_ARG"]),
    ({"METRICS_PORT": "70000"}, ["METRICS_PORT"]),
]


def test_a_setting_is_refused_by_name(project: Project) -> None:
    found = answers(project, [("serve", env) for env, _ in REFUSED])
    assert [sorted(names) for names in found] == [names for _, names in REFUSED]


def plug_ins(project: Project) -> list[tuple[int, str]]:
    """How the service ends with plug-ins that are not installed, by its own command line and by uvicorn's."""
    uvicorn = (str(project.venv / "bin/uvicorn"), "--port", "0", "--factory", "my_service.main:app")
    ends = []
    for name, value in (
        ("OTEL_PROPAGATORS", "b3"),
        ("OTEL_PYTHON_CONTEXT", SECRET),
        ("OTEL_PYTHON_TRACER_PROVIDER", SECRET),
    ):
        for command in (project.command("serve"), uvicorn):
            done = project.run("timeout", "8", *command, env={"PORT": "0", name: value}, check=False)
            ends.append(
                (done.returncode, done.stderr.removeprefix(f"configuration refused: {name}: use ").partition(",")[0])
            )
    return ends


def test_a_plug_in_that_is_not_installed_is_refused_before_a_library_reads_it(project: Project) -> None:
    """OpenTelemetry would end with a traceback while FastAPI imports it."""
    known = {"baggage", "contextvars_context", "default_tracer_provider"}
    assert {(code, first.strip()) for code, first in plug_ins(project)} == {(78, name) for name in known}


@pytest.mark.sabotage
def test_a_plug_in_that_nobody_checks_is_noticed(project: Project, tmp_path: Path) -> None:
    sick = project.variant(tmp_path / "sick", Value("src.my_service.__init__:PLUG_INS", "{}"))
    assert 78 not in {code for code, _ in plug_ins(sick)}


OPTIONAL = Edit(
    "src/my_service/settings.py",
    "from .platform import PlatformSettings\n",
    """from typing import Annotated

from .platform import PlatformSettings
from .platform.settings import OrOff, RealInProduction

Mail = RealInProduction("smtp://mail.acme.com", embedded=("memory:",), optional=True)
""",
)
MAIL = Edit(
    "src/my_service/settings.py",
    'set by its environment."""\n',
    'set by its environment."""\n\n    mail_url: Annotated[str | None, OrOff, Mail] = None\n',
)
LOOK = """
import os
from my_service.platform.settings import load
from my_service.settings import Settings

for value in ("", "memory://", "off", " OFF ", "smtp://mail.acme.test"):
    os.environ["MAIL_URL"] = value
    try:
        print(load(Settings).mail_url, flush=True)
    except SystemExit:
        pass
"""
ADVICE = "for example MAIL_URL=smtp://mail.acme.com, or off"
NEEDS = f"required in production, {ADVICE}"


def optional(project: Project, folder: Path, *changes: Sabotage) -> list[str]:
    """For each way to set an optional part in production: the refusal, or the value that the service then has."""
    made = project.variant(folder, OPTIONAL, MAIL, *changes)
    done = made.run("sh", "-c", f'exec {made.venv}/bin/python -c "$CODE" 2>&1', env={**REAL, "CODE": LOOK})
    return [line.removeprefix("configuration refused: MAIL_URL: ") for line in done.stdout.splitlines()]


def test_an_optional_part_needs_a_value_or_off_in_production(project: Project, tmp_path: Path) -> None:
    embedded = f"not allowed in production, {ADVICE}"
    assert optional(project, tmp_path / "well") == [NEEDS, embedded, "None", "None", "smtp://mail.acme.test"]


@pytest.mark.sabotage
def test_off_as_any_other_text_is_noticed(project: Project, tmp_path: Path) -> None:
    assert "None" not in optional(project, tmp_path / "sick", Body("settings:_none_if_off", "return value"))


def test_migrate_refuses_the_same_way(project: Project) -> None:
    assert answers(project, [("migrate", {"DATABASE_URL": f"mysql://a:{SECRET}@b/c"})]) == [["DATABASE_URL"]]


def test_real_settings_are_served(project: Project, tmp_path: Path) -> None:
    with project.serve(tmp_path, REAL) as service:
        assert service.client.get("/version", headers={"Host": "orders.acme.test"}).status_code == 200
        assert service.client.get("/version", headers={"Host": "eu.acme.test"}).status_code == 200
        assert service.client.get("/version").status_code == 400
        assert service.client.get("/docs", headers={"Host": "orders.acme.test"}).status_code == 404
        assert SECRET not in service.log


def test_the_description_is_served_in_production_where_somebody_says_so(project: Project, tmp_path: Path) -> None:
    with project.serve(tmp_path, {**REAL, "EXPOSE_DOCS": "true"}) as service:
        assert service.client.get("/docs", headers={"Host": "orders.acme.test"}).status_code == 200


def test_a_service_without_a_database_needs_none(bare_project: Project, tmp_path: Path) -> None:
    env = {"CACHE_URL": "off", "ENVIRONMENT": "production", "OTEL_EXPORTER_OTLP_ENDPOINT": "off", "SENTRY_DSN": "off"}
    assert [sorted(names) for names in answers(bare_project, [("serve", env)])] == [
        ["SECRETS_BACKEND", "TRUSTED_HOSTS"]
    ]
    with bare_project.serve(tmp_path, {**REAL, "DATABASE_URL": ""}) as service:
        assert service.client.get("/readyz").status_code == 200


def test_settings_show_no_secret(project: Project) -> None:
    code = "from my_service.settings import Settings; s = Settings(); print(s, repr(s), s.model_dump_json())"
    shown = project.run(str(project.venv / "bin/python"), "-c", code, env=REAL).stdout
    assert "orders.acme.test" in shown
    assert SECRET not in shown


def test_tests_never_read_dotenv(project: Project, tmp_path: Path) -> None:
    own = project.variant(tmp_path / "own")
    (own.root / ".env").write_text("GIT_COMMIT=from-dotenv\n")
    code = "from my_service.settings import Settings; print(Settings().git_commit)"
    python = str(own.venv / "bin/python")
    assert own.run(python, "-c", code).stdout.strip() == "from-dotenv"
    assert own.run(python, "-c", code, env={"ENVIRONMENT": "test"}).stdout.strip() == "unknown"


@pytest.mark.sabotage
@pytest.mark.parametrize(
    ("sabotage", "env"),
    [
        (Body("settings:load", "return kind(**values)"), {"ENVIRONMENT": "production"}),
        (Value("settings:_PLACEHOLDER", 're.compile("(?!)")'), {**REAL, "TRUSTED_HOSTS": "change-me"}),
    ],
    ids=["nothing is required", "placeholders pass"],
)
def test_a_sabotaged_check_is_noticed(
    project: Project, tmp_path: Path, sabotage: Sabotage, env: dict[str, str]
) -> None:
    sick = project.variant(tmp_path / "sick", sabotage)
    with sick.serve(tmp_path / "run", env) as service:  # it starts, where it must not
        assert service.process.running


# --- `.env` ---------------------------------------------------------------------------------------------------


DOTENV = """
import contextlib, io, json, pathlib, sys
from my_service.platform.settings import load
from my_service.settings import Settings

for content in json.loads(sys.stdin.read()):
    pathlib.Path(".env").write_bytes(bytes.fromhex(content))
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            print("read", load(Settings).environment)
    except SystemExit as error:
        print(error.code, said.getvalue().strip())
"""


def said(project: Project, dotenv: bytes) -> tuple[int, str]:
    """How `migrate` ends with such a `.env`, and what it says."""
    (project.root / ".env").write_bytes(dotenv)
    done = project.cli("migrate")
    return done.returncode, done.stdout + done.stderr


def test_a_dotenv_file_in_another_encoding_or_with_a_blank_environment_is_refused(
    project: Project, tmp_path: Path
) -> None:
    """PowerShell 5 writes UTF-16 (about_Character_Encoding), Notepad may write a byte order mark."""
    own, text = project.variant(tmp_path / "own"), f"DATABASE_URL=sqlite:///{tmp_path}/é.db\n"
    well, shown = said(own, text.encode("utf-8-sig"))
    assert (well, (tmp_path / "é.db").exists()) == (0, True), shown
    assert said(own, text.encode("utf-16")) == (78, "configuration refused: .env: save it as UTF-8\n")
    python, files = own.venv / "bin/python", [text.encode(each).hex() for each in ("utf-16-le", "latin-1")]
    env, contents = own.env(), json.dumps([*files, b"ENVIRONMENT=\n".hex()])
    lines = commands.must(python, "-c", DOTENV, cwd=own.root, env=env, text=contents).splitlines()
    assert lines[:2] == ["78 configuration refused: .env: save it as UTF-8"] * 2
    assert lines[2].startswith("78 configuration refused: ENVIRONMENT: ")
    given = commands.must(python, "-c", DOTENV, cwd=own.root, env={**env, "ENVIRONMENT": "staging"}, text=contents)
    assert given.splitlines()[2] == "read staging"


# --- README -----------------------------------------------------------------------------------------------------


def required(project: Project) -> tuple[list[str], list[str]]:
    """What production demands, by its refusals and by the table in the README."""
    refusals = answers(project, [("serve", {"ENVIRONMENT": "production"})])[0]
    section = (project.root / "README.md").read_text().partition("## Run it in production")[2]
    return sorted(refusals), re.findall(r"^\| `([A-Z_]+)` \|", section, re.M)


def test_the_readme_lists_what_production_demands(project: Project, bare_project: Project) -> None:
    for each in (project, bare_project):
        refusals, table = required(each)
        assert len(refusals) >= 5
        assert table == refusals
    text = (project.root / "README.md").read_text()
    assert [text.index(step) for step in ("make roles url=", "\\password", "DATABASE_MIGRATOR_URL=")]
    assert "make roles" not in (bare_project.root / "README.md").read_text()


@pytest.mark.sabotage
def test_a_demand_that_the_readme_does_not_list_is_noticed(project: Project, tmp_path: Path) -> None:
    refusals, table = required(project.variant(tmp_path / "sick", Line("README.md", "| `SENTRY_DSN`")))
    assert set(refusals) - set(table) == {"SENTRY_DSN"}


# --- HOST -------------------------------------------------------------------------------------------------------
# Where it listens, by its log: outside of a developer's machine on all addresses, because of containers.


def listens(project: Project, folder: Path, env: dict[str, str]) -> list[str]:
    with project.serve(folder, env) as service:
        return re.findall(r"http://([^\s\"]+):\d+\b", service.log)


def test_production_listens_where_a_container_is_reached(project: Project, tmp_path: Path) -> None:
    assert listens(project, tmp_path / "production", REAL) == ["0.0.0.0"]  # noqa: S104 as promised
    assert listens(project, tmp_path / "host", {**REAL, "HOST": "127.0.0.1"}) == ["127.0.0.1"]
    assert listens(project, tmp_path / "local", {}) == ["127.0.0.1"]


def undocumented(project: Project) -> set[str]:
    """Settings that `.env.example` does not name, and names there that are no settings."""
    code = "from {}.settings import Settings; print(*Settings.model_fields)"
    places = ["my_service", *(["my_service.ops.backup"] if (project.root / "src/my_service/ops").exists() else [])]
    python = str(project.venv / "bin/python")
    fields = {each for place in places for each in project.run(python, "-c", code.format(place)).stdout.upper().split()}
    named = re.findall(r"^#([A-Z_]+)=", (project.root / ".env.example").read_text(), re.M)
    return fields ^ set(named)


def test_every_setting_is_documented(project: Project, bare_project: Project) -> None:
    assert undocumented(project) == set()
    assert undocumented(bare_project) == set()


@pytest.mark.sabotage
def test_a_setting_that_is_not_documented_is_noticed(project: Project, tmp_path: Path) -> None:
    sick = project.variant(tmp_path / "sick", Line(".env.example", "#PORT=", "#PROT=8000"))
    assert undocumented(sick) == {"PORT", "PROT"}
